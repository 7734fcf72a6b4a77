"""From a YAML file to a grid of trials to Ray Tune."""
