#!/usr/bin/env bash
# A sweep as one Slurm job, on as many nodes as it is given:
#
#   sbatch --nodes=4 docker/slurm.sh sweeps/voc_full.yaml --store /shared/voc_full
#
# When its time is over, submit it again: the sweep goes on from the store, which must be a folder
# that all nodes see (or s3://…). Several sweeps at once: one job each, and one store each.
#SBATCH --job-name=mg-sweep
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-node=1
#SBATCH --time=24:00:00
# The driver alone is told two minutes before the end, and leaves the store tidy.
#SBATCH --signal=B:TERM@120
set -euo pipefail

: "${MG_VENV:=$HOME/.mg-sweep}" # where `pip install '.[cluster]'` went, seen by all nodes
export PATH=$MG_VENV/bin:$PATH

# A token of this job alone: other users of the nodes reach the ports too. It goes into a file that
# nobody else reads, for environments and command lines are seen by others.
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$HOME/.ray/slurm_token_$SLURM_JOB_ID
trap 'rm -f "$RAY_AUTH_TOKEN_PATH"' EXIT
mkdir -p "$HOME/.ray"
(umask 077 && python3 -c 'import secrets; print(secrets.token_hex())' >"$RAY_AUTH_TOKEN_PATH")

# Slurm 22.05 and newer: a step does not have the job's CPUs unless it is told so.
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
# Of several networks the first; `hostname --ip-address` would be a loopback one on many systems.
address=$(srun --nodes=1 --ntasks=1 --nodelist="$head" hostname -I | cut -d' ' -f1)
port=$((20000 + SLURM_JOB_ID % 20000)) # nodes may be shared by jobs
resources=(--num-cpus="${SLURM_CPUS_PER_TASK:-1}" --object-store-memory=200000000)
[ -z "${SLURM_GPUS_ON_NODE:-}" ] || resources+=(--num-gpus="$SLURM_GPUS_ON_NODE")

# Paths of sockets are limited to 107 bytes, and batch systems have long temporary folders.
[ -n "${RAY_TMPDIR:-}" ] || [ "$(printf %s "${TMPDIR:-}" | wc -c)" -le 34 ] || export RAY_TMPDIR=/tmp

srun --nodes=1 --ntasks=1 --overlap --nodelist="$head" \
  ray start --head --block --node-ip-address="$address" --port="$port" \
  --include-dashboard=false --disable-usage-stats "${resources[@]}" &
until ray health-check --address "$address:$port" >/dev/null 2>&1; do
  kill -0 $! # the head did not start: see its lines above
  sleep 2
done
if [ "$SLURM_JOB_NUM_NODES" -gt 1 ]; then
  n=$((SLURM_JOB_NUM_NODES - 1))
  srun --nodes="$n" --ntasks="$n" --overlap --exclude="$head" \
    ray start --block --address="$address:$port" "${resources[@]}" &
fi

mg-sweep run "$@" --address "$address:$port" &
driver=$!
trap 'kill -TERM $driver' TERM
while :; do
  code=0
  wait $driver || code=$?
  kill -0 $driver 2>/dev/null || break # else a signal ended the wait, not the driver
done
exit $code
