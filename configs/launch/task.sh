#!/bin/bash
# Run by srun once per node: starts one process per GPU and passes SIGUSR1 on to them, which accelerate does not do.
#   CONFIG  accelerate configuration
#   "$@"    options of train.py
address=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
(
  trap '' USR1 # the launcher ignores the signal; the training installs its own handler
  exec accelerate launch --config_file "$CONFIG" --num_machines "$SLURM_NNODES" --machine_rank "$SLURM_NODEID" \
    --num_processes $((SLURM_NNODES * SLURM_GPUS_ON_NODE)) --main_process_ip "$address" --main_process_port 29500 \
    train.py "$@"
) &
launcher=$!
trap 'stopped=yes; pkill -USR1 -P "$launcher"' USR1
wait "$launcher"
code=$?
if [ "$stopped" = yes ]; then # the signal ended `wait`
  wait "$launcher"
  code=$?
fi
exit "$code"
