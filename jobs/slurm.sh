#!/bin/bash
# One batch in 4 shards on a Slurm cluster. Copy this file beside your manifest, change the lines marked
# CHANGE, and start it there:  sbatch slurm.sh
#
# Each index of the array runs one shard, on any node. An index that starts again resumes from its
# ledger and buys nothing twice; so does the whole array if you submit it again. Every node needs this
# program and the output folder under the same paths, on a shared file system whose locks reach across
# nodes (NFS 4, Lustre with -o flock, GPFS, CephFS).

#SBATCH --job-name=batch-runner
# CHANGE: from 0 to the number of shards minus one.
#SBATCH --array=0-3
#SBATCH --nodes=1
#SBATCH --ntasks=1
# A shard mostly waits for the service. Its memory grows with its share of the ledger, by about half a
# GB for a million jobs.
#SBATCH --cpus-per-task=1
#SBATCH --mem=1G
# Longer than most batches need; a restart does the rest.
#SBATCH --time=1-00:00:00
# So many seconds before the time is up, Slurm sends SIGTERM, and this script passes it on. The shard then
# submits nothing, collects what is paid for (for 30 s), notifies people, and exits with 75.
#SBATCH --signal=B:TERM@120
# An index restarts by itself if it is preempted or its node is lost.
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=batch-runner-%A_%a.log
# Slurm would keep the environment of the user who submits, and the token with it.
#SBATCH --export=NONE

# CHANGE: the same number of shards. Not SLURM_ARRAY_TASK_COUNT, which is 1 if one index runs alone.
shards=4
# CHANGE: the path of the program, because a job starts with an environment of its own.
program=$HOME/batch-runner/.venv/bin/batch-runner
# CHANGE: the manifest, seen from the folder in which you type sbatch.
manifest=products.yaml
# A file with the line RUNCOMFY_API_TOKEN=…, and other variables that the batch needs. Never write the
# token into this script. Make the file readable by you alone:  chmod 600 ~/.config/batch-runner/env
environment_file=$HOME/.config/batch-runner/env
# How often an index restarts at most; each restart waits two minutes (cred_expire in slurm.conf).
restarts=20

if [ "$(stat -L -c %a -- "$environment_file")" != 600 ]; then
  echo "$environment_file must exist, and nobody else may read it: chmod 600 $environment_file" >&2
  exit 77
fi
set -a
. "$environment_file"
set +a

# --wait: with a window in the manifest, wait for it instead of using up the restarts.
"$program" run "$manifest" --shard "$SLURM_ARRAY_TASK_ID/$shards" --grace 30 --quiet --wait &
shard=$!
trap 'stopped=yes; kill -TERM "$shard" 2>/dev/null' TERM INT
# A signal ends `wait` before the shard has ended, so wait again.
while stopped=; wait "$shard"; code=$?; [ -n "$stopped" ]; do :; done

# Restart after 75 (stopped early) and 69 (the service is away). If your slurm.conf has
# RequeueExit=69,75, Slurm does this itself, without a limit: then remove these three lines. All other
# codes but 0 need a person: 3 (some jobs failed or are unknown), 64 65 66 74 77.
if { [ "$code" -eq 75 ] || [ "$code" -eq 69 ]; } && [ "${SLURM_RESTART_COUNT:-0}" -lt "$restarts" ]; then
  scontrol requeue "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"
fi
exit "$code"

# Look:              squeue --name=batch-runner; batch-runner status products.yaml
# Collect and stop:  scancel --batch --signal=TERM --name=batch-runner
