#!/bin/bash
# One batch in shards on Slurm: each index of the array runs one shard, on any node.
#
#     cp jobs/slurm.sh spring.sh         then edit the lines marked "yours"
#     mkdir -p logs && sbatch spring.sh
#     batch-runner status jobs/catalog.yaml                            to look
#     scancel --batch --signal=TERM --name=batch-runner                to collect and stop
#
# An index that is started again resumes from its ledger and buys nothing twice; so does the whole
# array. Every node needs this program and the output folder under the same paths, on a shared file
# system whose locks reach across nodes (NFS 4, Lustre with -o flock, GPFS, CephFS).

#SBATCH --job-name=batch-runner
# Yours: one index for each shard, from 0. The number of shards is below, too.
#SBATCH --array=0-3
#SBATCH --nodes=1
#SBATCH --ntasks=1
# A shard mostly waits for the service. Its memory grows with its share of the ledger, by about half
# a GB for a million jobs.
#SBATCH --cpus-per-task=1
#SBATCH --mem=1G
# Longer than most batches need; a restart does the rest.
#SBATCH --time=1-00:00:00
# So many seconds before the time is up, Slurm sends SIGTERM and this script passes it on. The shard
# then submits nothing, collects what is paid for (--grace), notifies people, and exits with 75.
#SBATCH --signal=B:TERM@120
# An index restarts by itself if it is preempted or its node is lost.
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=logs/%A_%a.log
# Slurm would store the environment of the user who submits, and the token with it.
#SBATCH --export=NONE

# Yours:
manifest=jobs/catalog.yaml
shards=4
batch_runner=batch-runner
environment_file=~/.config/batch-runner/env # RUNCOMFY_API_TOKEN=…, mode 0600

# How often an index restarts at most; each restart waits two minutes (Slurm's cred_expire).
restarts=20

if [ -e "$environment_file" ]; then
  if [ "$(stat -L -c %a -- "$environment_file")" != 600 ]; then
    echo "$environment_file: others can read it; run: chmod 600 $environment_file" >&2
    exit 77
  fi
  # The token is read from this file, never from a command line.
  set -a
  . "$environment_file"
  set +a
fi

# The number of shards is written out, because SLURM_ARRAY_TASK_COUNT is 1 if one index runs alone.
# Add --wait if the manifest has a window.
"$batch_runner" run "$manifest" --shard "$SLURM_ARRAY_TASK_ID/$shards" --grace 30 --quiet &
shard=$!
trap 'stopped=yes; kill -TERM "$shard" 2>/dev/null' TERM INT
# A signal ends `wait` before the shard has ended, so wait again.
while stopped=; wait "$shard"; code=$?; [ -n "$stopped" ]; do :; done

# Restart after 75 (stopped early) and 69 (the service is away), with or without RequeueExit in
# slurm.conf. All other codes but 0 need a person: 3 (some jobs failed or are unknown), 64 65 66 74 77.
if { [ "$code" -eq 75 ] || [ "$code" -eq 69 ]; } && [ "${SLURM_RESTART_COUNT:-0}" -lt "$restarts" ]; then
  scontrol requeue "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"
fi
exit "$code"
