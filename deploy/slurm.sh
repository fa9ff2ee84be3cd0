#!/usr/bin/env bash
# One command on a Ray cluster that lives as long as a Slurm job. In the project's folder, on a disk that the nodes share:
#     sbatch --nodes=2 deploy/slurm.sh train voc/spiking_fcn
# The command runs on the first node; what goes through Ray (cluster.address: auto in params.yaml) uses all of them.
#SBATCH --job-name=snnseg
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@180
# for GPUs: sbatch --gpus-per-node=1 ...
set -euo pipefail

[[ $# -gt 0 ]] || { echo "usage: sbatch deploy/slurm.sh VERB ..." >&2; exit 2; }
cd "${SLURM_SUBMIT_DIR:?run it with sbatch, in the folder of the project}"
[[ ! -f .venv/bin/activate ]] || . .venv/bin/activate

# whoever has the token has the cluster: a file that only this user reads, for this job only
umask 077
mkdir -p data
token=$(mktemp "$PWD/data/.ray-token.XXXXXX")
python3 -c 'import secrets; print(secrets.token_hex(32))' > "$token"
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$token" RAY_USAGE_STATS_ENABLED=0

steps=() command=
clean() {
    trap - EXIT
    for step in "${steps[@]}"; do kill -TERM "$step" 2> /dev/null || true; done
    for step in "${steps[@]}"; do wait "$step" 2> /dev/null || true; done
    rm -f "$token"
}
trap clean EXIT
# Slurm asks some minutes before it ends the job: the command saves, the cluster goes after it
trap '[[ -z $command ]] || kill -TERM "$command" 2> /dev/null || true' TERM

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]} port=$((20000 + SLURM_JOB_ID % 20000))     # one head a job: nodes may be shared
cpus=(--num-cpus "${SLURM_CPUS_PER_TASK:-1}" --disable-usage-stats)

srun --nodes=1 --ntasks=1 --nodelist="$head" --overlap ray start --head --block --port "$port" --dashboard-host 127.0.0.1 "${cpus[@]}" &
steps+=($!)
for ((tries = 0; ; tries++)); do
    ray status --address "$head:$port" > /dev/null 2>&1 && break
    ((tries < 120)) && kill -0 "${steps[0]}" 2> /dev/null || { echo "snnseg: $head:$port: the head did not start" >&2; exit 9; }
    sleep 1
done
if ((${#nodes[@]} > 1)); then
    others=$(IFS=,; echo "${nodes[*]:1}")
    srun --nodes=$((${#nodes[@]} - 1)) --ntasks=$((${#nodes[@]} - 1)) --nodelist="$others" --overlap \
        ray start --block --address "$head:$port" "${cpus[@]}" &
    steps+=($!)
fi

RAY_ADDRESS="$head:$port" snnseg "$@" &
command=$!
code=0
wait "$command" || code=$?
while kill -0 "$command" 2> /dev/null; do code=0; wait "$command" || code=$?; done      # a signal ends a wait, not the command
exit "$code"
