"""The batch file of a study: its options, the study itself, and what is done at a signal and at the end."""

from collections.abc import Mapping
from pathlib import Path
from string import Template

from orchestrator.cluster.request import Request, shell

OBJECT_STORE_BYTES = 100 * 2**20
END = "END-OF-STUDY"

_SCRIPT = Template("""\
#!/bin/bash
$directives
# Submitted again, or queued again by Slurm, it goes on: nothing that was finished is run twice.
set -u
export PATH=$path:"$$PATH" RAY_USAGE_STATS_ENABLED=0
log=$log
scratch=$$(mktemp -d)
trap 'rm -rf "$$scratch"' EXIT
cat >"$$scratch/study.yaml" <<'$end'
$study
$end

# Starts the sweep, notes its process and waits for it, whatever signals come by.
driver='trap : TERM USR1
"$${@:3}" >>"$$2" 2>&1 &
echo $$! >"$$1/driver"
wait $$!; while kill -0 $$! 2>/dev/null; do wait $$!; done
wait $$!; echo $$? >"$$1/code"; exit "$$(cat "$$1/code")"'

# The time limit is near, or the machine is wanted: what runs is finished or saved.
queue_again=
drain() { [ -s "$$scratch/driver" ] && kill -TERM "$$(cat "$$scratch/driver")" 2>/dev/null; }
trap 'queue_again=1; drain' USR1
trap drain TERM

$run &
job=$$!
wait "$$job"; while kill -0 "$$job" 2>/dev/null; do wait "$$job"; done
if [ ! -s "$$scratch/driver" ]; then
    echo "$unstarted" >>"$$log"
    exit 2
fi
code=$$(cat "$$scratch/code" 2>/dev/null || echo 143)
if [ -n "$$queue_again" ] && [ "$$code" -eq 3 ]; then
    echo "drained in time; the job is queued again and goes on from here" >>"$$log"
    scontrol requeue "$$SLURM_JOB_ID" && sleep 60
fi
exit "$$code"
""")

_ALONE = Template("""\
bash -c "$$driver" driver "$$scratch" "$$log" \\
    $sweep --cores "$$SLURM_CPUS_ON_NODE" "$$scratch/study.yaml\"""")

_TOGETHER = Template("""\
# Whoever finds the port needs the token too.
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN=$$(od -An -N32 -tx1 /dev/urandom | tr -d ' \\n')
export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=$${RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT:-300}
head=$$(scontrol show hostnames "$$SLURM_JOB_NODELIST" | head -n 1):$$((20000 + SLURM_JOB_ID % 20000))
# Each machine says how many cores it gives. What Ray itself has to say has a log of its own.
srun --ntasks-per-node=1 --cpu-bind=none --wait=20 --open-mode=append --output="$${log%.log}-ray.log" \\
    bash -c 'exec ray symmetric-run --num-cpus="$$SLURM_CPUS_ON_NODE" "$$@"' ray \\
    --address "$$head" --min-nodes "$$SLURM_JOB_NUM_NODES" --num-gpus=$gpus --object-store-memory=$store -- \\
    bash -c "$$driver" driver "$$scratch" "$$log" \\
    $sweep --address "$$head" "$$scratch/study.yaml\"""")


def batch_script(
    request: Request, directives: Mapping[str, str], log: str, *, nodes: int, gpus: int, python: str
) -> str:
    """The text that sbatch takes.

    `log` is where the job writes, with %j for its number; `python` is the interpreter there, beside which `ray` lies.
    """
    together = nodes > 1
    run = _TOGETHER if together else _ALONE
    ray_log = "; see ${log%.log}-ray.log" if together else ""
    return _SCRIPT.substitute(
        directives="\n".join(f"#SBATCH --{key}{'=' if value else ''}{value}" for key, value in directives.items()),
        path=shell((str(Path(python).parent),)),
        log=f'{shell((log.removesuffix("%j.log"),))}"$SLURM_JOB_ID.log"',
        study=request.text.rstrip("\n"),
        run=run.substitute(sweep=shell(request.sweep(python)), gpus=gpus, store=OBJECT_STORE_BYTES),
        unstarted=f"the sweep did not start{ray_log}",
        end=END,
    )
