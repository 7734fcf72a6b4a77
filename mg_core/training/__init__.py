"""Running a trial: training, evaluation, checkpoints, failures."""
