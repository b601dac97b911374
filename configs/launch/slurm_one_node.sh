#!/bin/bash
#SBATCH --job-name=afterglow
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --time=04:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%j.out
# One node, one process per GPU. Submit it from the repository, with options of train.py:
#   sbatch configs/launch/slurm_one_node.sh --config configs/demo.yaml --name demo
# SLURM signals this script 120 seconds before the time limit. The training then saves a checkpoint, and the job is queued again.
export CONFIG=configs/launch/many_gpus.yaml
srun bash configs/launch/task.sh "$@" --resume auto &
step=$!
trap 'stopped=yes; kill -USR1 "$step"' USR1 # srun passes the signal on to its tasks
wait "$step"
code=$?
if [ "$stopped" = yes ]; then # the signal ended `wait`
  wait "$step"
  code=$?
  if [ "$code" -ne 0 ]; then
    scontrol requeue "$SLURM_JOB_ID"
  fi
fi
exit "$code"
