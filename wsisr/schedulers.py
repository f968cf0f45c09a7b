"""Scripts for schedulers, as text: a command of wsisr in shares that Slurm or Snakemake runs.

The work stays in the commands: each share can be run anywhere and again, skips what is done, and
says by its exit code what is left (0 complete; 1 complete, some slides failed; 75 waiting for
other shares; 2 nothing usable; 130 interrupted, to be run again).
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from string import Template

from wsisr.errors import ConfigError

SLIDES_A_PART = 8
MOST_PARTS = 1000
"""Slurm's arrays have at most 1,001 tasks where nobody raised it (MaxArraySize)."""
MOST_RESTARTS = 20


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What one share asks of the machine that it gets.

    Attributes
    ----------
    hours : float
        After so long it is ended two minutes early and queued again.
    more : tuple of str
        Further words for ``sbatch``, e.g. ``--partition=long``.
    """

    cpus: int = 4
    gpus: int = 0
    memory_gb: int = 16
    hours: float = 4.0
    more: tuple[str, ...] = ()


def parts_for(slides: int) -> int:
    """How many shares a build of so many slides is divided into."""
    return max(1, min(MOST_PARTS, -(-slides // SLIDES_A_PART)))


_JOB = Template("""\
#!/bin/bash
# $title
#
#   bash THIS_FILE       submits everything; run it again whenever something was lost:
#                        what is done is not done again.
#
# Two minutes before its time limit a job is told to stop (SIGUSR1), drops the slide in hand or
# saves the step, and queues itself again. Exit codes: 0 complete; 1 complete, some slides failed
# (failures.csv); 75 waiting for other jobs; 2 nothing usable, see the log; 130 interrupted.
set -u
mkdir -p $logs

if [ -z "$${SLURM_JOB_ID:-}" ]; then
  here=$$(realpath "$$0")
  job=(sbatch --parsable --requeue --open-mode=append --signal=B:USR1@120
       --cpus-per-task=$cpus --mem=${memory}G --time=$time$more)
$submit  exit 0
fi

case "$$1" in
$cases  *) echo "no such job: $$1" >&2; exit 2 ;;
esac

child=
again=
code=127
trap 'told=1; again=1; kill -TERM $$child' USR1  # the time limit is near
trap 'told=1; kill -TERM $$child' TERM           # somebody cancels the job
"$${command[@]}" &
child=$$!
while
  told=
  wait $$child
  last=$$?
  [ $$last -eq 127 ] || code=$$last  # 127: nothing more to wait for
  [ -n "$$told" ]                   # a signal ends the wait before the command ends
do :; done
if [ -n "$$again" ] && [ $$code -ne 0 ] && [ "$${SLURM_RESTART_COUNT:-0}" -lt $restarts ]; then
  task=$${SLURM_ARRAY_JOB_ID:+$${SLURM_ARRAY_JOB_ID}_$$SLURM_ARRAY_TASK_ID}
  scontrol requeue "$${task:-$$SLURM_JOB_ID}"
fi
exit $$code
""")


@dataclass(frozen=True)
class _Step:
    """One job or array of a script: its words, and whether it runs once for each part."""

    name: str
    words: str
    array: bool = False


def slurm_script(command: Sequence[str], needs: Needs, parts: int) -> str:
    """A bash file that submits a command to Slurm and is what the jobs run.

    Parameters
    ----------
    command : sequence of str
        ``build-pairs``, ``upscale``, ``train`` or ``eval`` and its words.
    parts : int
        Tasks of an array (of a build and of `upscale`).

    Raises
    ------
    ConfigError
        For other commands.
    """
    share = f"--part $SLURM_ARRAY_TASK_ID/{parts}"
    words = shlex.join(command)
    wsisr = f"wsisr {words}"
    if command[0] == "build-pairs":
        # afterany: a share with a failed slide ends with 1, and must not stop the others for ever.
        steps = [
            _Step("scan", f"{wsisr} --phase scan {share}", array=True),
            _Step("plan", f"{wsisr} --phase plan"),
            _Step("extract", f"{wsisr} --phase extract {share}", array=True),
            _Step("finish", f"{wsisr} --phase finish"),
        ]
    elif command[0] == "upscale":
        steps = [_Step("upscale", f"{wsisr} {share}", array=True)]
    elif command[0] == "train":
        if needs.gpus > 1:
            wsisr = f"torchrun --standalone --nproc-per-node {needs.gpus} -m wsisr_cli {words}"
        resume = "" if "--resume" in command else " --resume"
        steps = [_Step("train", f"{wsisr}{resume}")]
    elif command[0] == "eval":
        steps = [_Step("eval", wsisr)]
    else:
        raise ConfigError(
            f"{command[0]} is no command for a cluster; those are build-pairs, upscale, train and "
            "eval."
        )
    jobs = f" in {parts} part(s)" if any(step.array for step in steps) else ""
    minutes = max(5, round(needs.hours * 60))
    gpus = [f"--gpus={needs.gpus}"] if needs.gpus else []
    return _JOB.substitute(
        title=f"{wsisr}{jobs}".replace("\n", " "),
        logs="slurm-logs",
        cpus=needs.cpus,
        memory=needs.memory_gb,
        time=f"{minutes // 60:02}:{minutes % 60:02}:00",
        more="".join(f" {shlex.quote(word)}" for word in (*gpus, *needs.more)),
        submit=_submit(steps, parts),
        cases="".join(f"  {s.name}) command=({s.words}) ;;\n" for s in steps),
        restarts=MOST_RESTARTS,
    )


def _submit(steps: Sequence[_Step], parts: int) -> str:
    lines, before = [], ""
    for step in steps:
        words = [f"--job-name=wsisr-{step.name}"]
        words += [f"--array=1-{parts}"] if step.array else []
        words += [f"--output=slurm-logs/{step.name}-%{'A_%a' if step.array else 'j'}.log"]
        # Only an id that sbatch printed can be waited for.
        words += [f'--dependency=afterany:"${before}"'] if before else []
        lines.append(
            f'  {step.name}=$("${{job[@]}}" {" ".join(words)} "$here" {step.name}) || exit'
        )
        lines.append(f'  echo "{step.name}: job ${step.name}"')
        before = step.name
    return "\n".join(lines) + "\n"


_SNAKEFILE = Template("""\
# $title
#
#   snakemake -s THIS_FILE --cores $cpus
#   snakemake -s THIS_FILE --executor slurm --jobs 100 --latency-wait 60
#
# The store is nobody's declared output: Snakemake removes those before and after a failed rule,
# and the parts of a build share it. Files in $state say what is done; remove the folder to have
# everything looked at again (what is built is not built again).
# Exit code 1 is a share that is complete but for failed slides (failures.csv): that goes on.
PARTS = range(1, $parts + 1)
COMMAND = $command
DONE = " || [ $$? -eq 1 ]"

rule all:
    input: "$state/finish.done"

rule scan:
    output: touch("$state/scan-{part}.done")
    threads: $cpus
    resources: mem_mb=$memory, runtime=$minutes
    retries: 3
    shell: COMMAND + " --workers {threads} --phase scan --part {wildcards.part}/$parts" + DONE

rule plan:
    input: expand("$state/scan-{part}.done", part=PARTS)
    output: touch("$state/plan.done")
    resources: mem_mb=$memory, runtime=$minutes
    shell: COMMAND + " --phase plan" + DONE

rule extract:
    input: "$state/plan.done"
    output: touch("$state/extract-{part}.done")
    threads: $cpus
    resources: mem_mb=$memory, runtime=$minutes
    retries: 3
    shell: COMMAND + " --workers {threads} --phase extract --part {wildcards.part}/$parts" + DONE

rule finish:
    input: expand("$state/extract-{part}.done", part=PARTS)
    output: touch("$state/finish.done")
    resources: mem_mb=$memory, runtime=$minutes
    shell: COMMAND + " --phase finish" + DONE
""")


def snakefile(command: Sequence[str], store: str, needs: Needs, parts: int) -> str:
    """A Snakefile that builds a store; arguments as for `slurm_script`.

    Parameters
    ----------
    store : str
        The store, beside which the state of the rules is kept.

    Raises
    ------
    ConfigError
        For other commands than ``build-pairs``.
    """
    if command[0] != "build-pairs":
        raise ConfigError(
            f"{command[0]} has no rules for Snakemake; build-pairs has. wsisr cluster slurm knows "
            "upscale, train and eval too."
        )
    words = [word.replace("{", "{{").replace("}", "}}") for word in ("wsisr", *command)]
    return _SNAKEFILE.substitute(
        title=shlex.join(["wsisr", *command]).replace("\n", " "),
        command=repr(shlex.join(words)),
        state=store.replace("{", "{{").replace("}", "}}") + ".jobs",
        parts=parts,
        cpus=needs.cpus,
        memory=needs.memory_gb * 1000,
        minutes=max(5, round(needs.hours * 60)),
    )
