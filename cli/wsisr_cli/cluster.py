"""`wsisr cluster`: scripts that run a command on a cluster, printed."""

from typing import Annotated, Any

import typer

app = typer.Typer(
    help="Print a script that runs a command as jobs of Slurm or rules of Snakemake.",
    no_args_is_help=True,
)
_PASS_ON = {"allow_extra_args": True, "allow_interspersed_args": False}

Parts = Annotated[
    int | None, typer.Option(min=1, max=1000, help="Shares; default: one for eight slides.")
]
Cpus = Annotated[int, typer.Option(min=1, help="Cores of each job.")]
Memory = Annotated[int, typer.Option(min=1, help="GB of each job.")]
Hours = Annotated[float, typer.Option(min=0.1, help="Time limit of each job.")]


@app.command(context_settings=_PASS_ON)
def slurm(
    context: typer.Context,
    parts: Parts = None,
    cpus: Cpus = 4,
    memory: Memory = 16,
    hours: Hours = 4.0,
    gpus: Annotated[int, typer.Option(min=0, help="GPUs of each job.")] = 0,
    sbatch: Annotated[
        list[str] | None,
        typer.Option(help="A further option of sbatch; repeatable.", metavar="OPTION"),
    ] = None,
) -> None:
    """A script for `bash` that submits a command: wsisr cluster slurm build-pairs study/ -o x.

    The command is build-pairs, upscale, train or eval, and comes last.
    """
    from wsisr.schedulers import Needs, slurm_script

    command, given = _command(context)
    needs = Needs(cpus=cpus, gpus=gpus, memory_gb=memory, hours=hours, more=tuple(sbatch or ()))
    typer.echo(slurm_script(command, needs, parts or _parts(command, given)), nl=False)


@app.command(context_settings=_PASS_ON)
def snakemake(
    context: typer.Context,
    parts: Parts = None,
    cpus: Cpus = 4,
    memory: Memory = 16,
    hours: Hours = 4.0,
) -> None:
    """A Snakefile that builds: wsisr cluster snakemake build-pairs study/ -o x > Snakefile."""
    from wsisr.schedulers import Needs, snakefile

    command, given = _command(context)
    needs = Needs(cpus=cpus, memory_gb=memory, hours=hours)
    store = str(given.get("output", ""))
    typer.echo(snakefile(command, store, needs, parts or _parts(command, given)), nl=False)


def _command(context: typer.Context) -> tuple[list[str], dict[str, Any]]:
    """The words of the command that is to be run, and its options as it will understand them."""
    from wsisr.errors import ConfigError

    words = list(context.args)
    if not words:
        raise typer.BadParameter("name the command last, e.g. build-pairs study/ -o pairs.zarr")
    root: Any = context.find_root()
    command: Any = root.command.get_command(root, words[0])
    if command is None:
        raise ConfigError(f"{words[0]} is no command of wsisr.")
    given: dict[str, Any] = command.make_context(words[0], words[1:], parent=root).params
    own = ("part", "slide", "phase", "finish", "dry_run", "overwrite", "record", "dask")
    for name in own:
        if given.get(name):
            option = name.replace("_", "-")
            raise ConfigError(f"--{option} does not go with jobs side by side; leave it out.")
    return words, given


def _parts(command: list[str], given: dict[str, Any]) -> int:
    """Shares for the slides that are there."""
    from wsisr.schedulers import parts_for

    if command[0] == "build-pairs":
        from wsisr.building import BuildRequest, prepare

        request = BuildRequest(source=given["source"], manifest=given["manifest"], overrides={})
        return parts_for(len(prepare(request).tasks))
    if command[0] == "upscale":
        from wsisr.slides import find_slides

        source = given["source"]
        return parts_for(len(find_slides(source))) if source.is_dir() else 1
    return 1
