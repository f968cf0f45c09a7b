"""What a page says of a training run: its record and its logs, read without torch."""

from dataclasses import dataclass

import numpy as np

from wsisr.inference.trained import TrainedModel
from wsisr.training.curves import Log, at_scale, read_columns, scales_of
from wsisr.words import duration


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """A run with its logs.

    Attributes
    ----------
    log, validation : mapping of str to ndarray
        Columns of ``log.csv`` and ``validation.csv``; empty where there is none.
    """

    run: TrainedModel
    log: Log
    validation: Log

    @property
    def skipped(self) -> int:
        """Steps whose update was left out because a value was not finite."""
        # The log counts from the start of the run, and so the last row has them all.
        values = self.log.get("skipped", np.empty(0))
        values = values[np.isfinite(values)]
        return int(values.max()) if len(values) else 0

    def best(self) -> dict[str, float]:
        """Validation row of the best step: at its first scale, or where PSNR was highest."""
        if not scales_of(self.validation):
            return {}
        rows = at_scale(self.validation, scales_of(self.validation)[0])
        best = self.run.document.get("best") or {}
        at = np.flatnonzero(rows["step"] == best.get("step", -1))
        psnr = np.where(np.isfinite(rows["psnr_rgb"]), rows["psnr_rgb"], -np.inf)
        index = int(at[-1]) if len(at) else int(np.argmax(psnr))
        return {name: float(values[index]) for name, values in rows.items()}

    def numbers(self) -> dict[str, object]:
        """What a reader looks for first, as it is written, by the words that are said of it."""
        run, best = self.run, self.best()
        gain = best["psnr_rgb"] - best.get("bicubic_psnr_rgb", np.nan) if best else np.nan
        done = f"{run.step:,}"
        return {
            "steps": f"{done} of {run.steps:,}" if run.step < run.steps else done,
            "best PSNR-RGB, dB": f"{best['psnr_rgb']:.2f}" if best else None,
            "over bicubic, dB": f"{gain:+.2f}" if np.isfinite(gain) else None,
            "best step": int(best["step"]) if best else None,
            "parameters": run.document.get("parameters"),
            "time in steps": duration(self.seconds()),
        }

    def seconds(self) -> float:
        """Time spent in steps and in waiting for data, from the log; NaN where it has none."""
        need = ("step", "step_ms")
        if any(name not in self.log for name in need) or not len(self.log["step"]):
            return float("nan")
        steps = np.diff(self.log["step"], prepend=0.0)
        wait = self.log.get("data_wait_ms", np.zeros(len(steps)))
        each = np.nan_to_num(self.log["step_ms"]) + np.nan_to_num(wait)
        return float((np.maximum(steps, 0.0) * each).sum() / 1000)


def read_run(run: TrainedModel) -> RunFacts:
    """The logs of a run; a line that a stop left half-written is passed over."""
    return RunFacts(
        run=run,
        log=read_columns(run.folder / "log.csv"),
        validation=read_columns(run.folder / "validation.csv"),
    )
