"""The stages of hb_compile, from a `Job` to files: import, calibrate, convert, compile, evaluate, perf.

Files are written into a hidden folder inside the output folder and moved out when everything has succeeded, so that a run
that fails or is interrupted leaves the folder as it was, but for its log and, after a fault of the compiler, a reproducer.
"""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hbir.errors import ConfigError, HbError
from hbir.march import March, load_march
from tools.console import Log
from tools.job import InputPlan, Job
from tools.outcome import Outcome
from tools.refusals import Refusal
from tools.samples import SampleInput, Samples, open_samples, read_labels

if TYPE_CHECKING:
    from backends import Hbm
    from hbir.module import Module
    from tools.evaluation import EvaluationResult

__all__ = ["run_job"]

# Without evaluation data the binary is compared with the float network on so many calibration samples.
_COMPARED = 4


@dataclass
class _Data:
    calibration: Samples | None = None
    evaluation: Samples | None = None
    labels: Any = None


def _check_march(job: Job) -> March:
    if not job.march:
        raise ConfigError(
            Refusal.MISSING,
            "no march is given",
            lever="add --march nash-e (or nash-m, nash-p, nash-h, or the path of a .toml file)",
        )
    march = load_march(job.march)
    if not 1 <= job.core_num <= march.cores:
        raise ConfigError(
            Refusal.VALUE, f"core_num is {job.core_num}", why=f"{march.name} has {march.cores} core{'s' * (march.cores > 1)}",
            lever=f"choose 1{f' to {march.cores}' if march.cores > 1 else ''}",
        )  # fmt: skip
    if job.max_l2m_size > march.l2m_bytes:
        raise ConfigError(
            *(Refusal.VALUE, f"max_l2m_size is {job.max_l2m_size}"),
            why=f"{march.name} has {march.l2m_bytes} bytes of L2M" if march.l2m_bytes else f"{march.name} has no L2M",
            lever=f"choose 0{f' to {march.l2m_bytes}' if march.l2m_bytes else ''}",
        )
    return march


def _import(job: Job) -> Module:
    if job.model.suffix != ".onnx":
        from hbir.module import load

        module = load(job.model)
        if len(module.functions) != 1:
            raise ConfigError(
                Refusal.MODULE_STATE,
                f"{job.model.name} has {len(module.functions)} functions",
                lever="compile a module with one function",
            )
        return module
    from hbir.frontends.onnx import export

    # The model's name in the binary is the prefix, as users of the published tool expect it.
    return export(
        job.model,
        name=job.prefix,
        input_shapes={plan.name: plan.shape for plan in _named(job) if plan.shape is not None},
    )


def _named(job: Job) -> Sequence[InputPlan]:
    """The inputs' plans; a shape for an unnamed input gets the name of the model's only input."""
    if all(plan.name or plan.shape is None for plan in job.inputs):
        return job.inputs
    from hbir.frontends.onnx.reader import read_model

    graph = read_model(job.model).graph
    held = {tensor.name for tensor in graph.initializer}
    names = [value.name for value in graph.input if value.name not in held]
    if len(names) != 1 or len(job.inputs) != 1:
        raise ConfigError(
            Refusal.MISSING, f"input_name is missing: the model's inputs are {names}", lever="name them, separated by ;"
        )
    return [InputPlan(names[0], job.inputs[0].shape, job.inputs[0].image)]


def _prepare_inputs(job: Job, module: Module) -> tuple[SampleInput, ...]:
    """Insert what image inputs need; the inputs as sample files hold them, in the order of the configuration."""
    from tools.preprocessing import insert_image_input

    arguments = {a.name: a for a in module[0].flatten_inputs}
    plans = job.inputs or tuple(InputPlan(name) for name in arguments)
    if len(plans) == 1 and not plans[0].name and len(arguments) == 1:
        plans = (InputPlan(next(iter(arguments)), plans[0].shape, plans[0].image),)
    names = [plan.name for plan in plans]
    unknown = [name for name in names if name not in arguments]
    if len(unknown) == 1 and unknown[0] == "":
        raise ConfigError(
            Refusal.MISSING,
            "input_name is missing",
            why=f"the model has {len(arguments)} inputs",
            lever=f"name them: {';'.join(arguments)}",
        )
    if unknown or (len(names) != len(arguments) and (job.calibration.folders or job.evaluation)):
        raise ConfigError(
            *(Refusal.INPUT_NAMES, f"input_name names {', '.join(names)}"),
            why=f"the model's inputs are {', '.join(arguments) or 'none'}",
            lever=f"write input_name: {';'.join(arguments)}",
        )
    entries: list[SampleInput] = []
    for plan in plans:
        type_ = arguments[plan.name].type
        if plan.shape is not None and plan.shape != type_.shape:
            raise ConfigError(
                *(Refusal.VALUE, f"input_shape {list(plan.shape)} for input '{plan.name}'"),
                why=f"the module has {list(type_.shape)}", lever="leave it out, or import the model again with that shape",
            )  # fmt: skip
        entries.append(SampleInput(plan.name, type_.shape, type_.np_dtype, plan.image))
    for plan in plans:
        if plan.image is not None:
            insert_image_input(module, plan.name, plan.image)
    return tuple(entries)


def _open_data(job: Job, entries: tuple[SampleInput, ...], log: Log) -> _Data:
    data = _Data()
    if job.calibration.folders:
        data.calibration = open_samples(job.calibration.folders, entries, "calibration")
    if job.evaluation is not None:
        data.evaluation = open_samples(job.evaluation.folders, entries, "evaluation")
        if job.evaluation.labels is not None:
            data.labels = read_labels(job.evaluation.labels, len(data.evaluation))
    for what, samples in (("calibration", data.calibration), ("evaluation", data.evaluation)):
        if samples is not None:
            log.info(
                f"{len(samples)} {what} samples"
                + (f"; {samples.left_out} other files left out" if samples.left_out else "")
            )
    return data


def _state(module: Module) -> str:
    from hbir.dialects.qat import FakeQuantOp

    if module.march is not None:
        return "quantised"
    return "fake-quantised" if any(isinstance(op, FakeQuantOp) for f in module for op in f.operations) else "float"


def _calibrate(job: Job, module: Module, samples: Samples | None, log: Log) -> Module:
    wanted = job.calibration
    if samples is None:
        from passes.calibrate import FLOAT_PIPELINE
        from passes.insert_fake_quant import InsertFakeQuant
        from passes.manager import Pipeline

        log.warning("no calibration data: every range is [-1, 1]; good for performance, not for results")
        bits = InsertFakeQuant(activation_bits=wanted.activation_bits, head_bits=wanted.head_bits)
        return Pipeline([bits]).run(Pipeline(FLOAT_PIPELINE).run(module))
    from passes import calibrate

    with log.stage("calibrate", "calibrate model") as advance:
        return calibrate(
            module,
            samples.feeds(),
            observer=wanted.observer,
            activation_bits=wanted.activation_bits,
            head_bits=wanted.head_bits,
            asymmetric=wanted.asymmetric,
            percentile=wanted.percentile,
            progress=lambda done: advance(done / len(samples)),
        )


def _convert(module: Module, march: March, log: Log) -> Module:
    from passes import convert
    from passes.convert import convert_pipeline
    from passes.manager import Pass, PassReport

    steps, done = convert_pipeline(march).count(",") + 1, 0
    with log.stage("convert", "convert model") as advance:

        def observe(_: Pass, report: PassReport, __: Module) -> None:
            nonlocal done
            done += 1
            advance(done / steps)
            log.debug(f"pass {report.name}: {report.seconds:.3f} s, {report.before} -> {report.after} operations")

        return convert(module, march, observer=observe)


def _compile(job: Job, module: Module, march: March, path: Path, log: Log) -> Hbm:
    import backends

    with log.stage("compile", "compile the hbm model") as advance:

        def progress(stage: str, done: float) -> None:
            log.debug(f"{stage}: {100 * done:.0f} %")
            advance(done)

        return backends.compile(
            module, path, march, job.opt, core_num=job.core_num, balance=job.balance, max_l2m_size=job.max_l2m_size,
            debug=job.debug, progress=progress,
        )  # fmt: skip


@contextmanager
def _reproducible(job: Job, module: Module, command: list[str], log: Log) -> Generator[None]:
    """On a fault of the compiler leave its input and a command in the folder `reproducer`; refusals explain themselves."""
    try:
        yield
    except HbError:
        raise
    except Exception as error:
        from hbir.ir.files import write_bytes
        from passes.debugging.reproducer import MODULE, write_reproducer

        folder, march = job.folder / "reproducer", job.march
        try:
            if Path(march).suffix:
                march = "march.toml"
                write_bytes(folder / march, [Path(job.march).read_bytes()])
            write_reproducer(folder, module, [*command, "-m", MODULE, "--march", march], error)
        except (HbError, OSError) as refusal:
            # What went wrong first is what the user is to hear of.
            log.warning(f"there is no reproducer: {refusal}")
        else:
            log.warning(f"what failed can be run again from {folder}")
        raise


def _evaluate(hbm: Hbm, quantized: Module, reference: Module | None, data: _Data, log: Log) -> EvaluationResult | None:
    from tools.evaluation import evaluate

    samples, source, total = data.evaluation, "evaluation", len(data.evaluation or ())
    if samples is None:
        samples, source, total = data.calibration, "calibration", min(_COMPARED, len(data.calibration or ()))
    if samples is None:
        return None
    with log.stage("evaluate", f"run the binary on {total} {source} samples") as advance:
        return evaluate(
            hbm[0], quantized[0], None if reference is None else reference[0], samples.feeds(total),
            source=source, total=total, labels=data.labels if source == "evaluation" else None, advance=advance,
        )  # fmt: skip


def _layer_cosines(reference: Module | None, state: str, quantized: Module, data: _Data) -> dict[str, float] | None:
    samples = data.calibration or data.evaluation
    if reference is None or samples is None or state != "float":
        return None
    from passes.calibrate import FLOAT_PIPELINE
    from passes.manager import Pipeline
    from tools.evaluation import layer_cosines

    return layer_cosines(Pipeline(FLOAT_PIPELINE).run(reference), quantized, next(samples.feeds(1)))


def run_job(job: Job, log: Log) -> Outcome:
    """Run all stages. Raises HbError; the output folder is then as it was, with `hb_compile.log` beside it."""
    march = _check_march(job)
    log.open(job.folder / "hb_compile.log")
    log.info("Start hb_compile...")
    for note in job.notes:
        log.warning(note)
    for section, values in job.settings.items():
        log.debug(f"{section}: {values}")
    with log.stage("export", "export model"):
        module = _import(job)
    state = _state(module)
    if state == "quantised" and module.march != march.name:
        raise ConfigError(
            Refusal.MODULE_STATE, f"{job.model.name} was converted for {module.march}, not for {march.name}",
            lever=f"compile it for {module.march}, or convert the calibrated module again",
        )  # fmt: skip
    if state != "float" and any(plan.image is not None for plan in job.inputs):
        raise ConfigError(
            Refusal.CONFLICT, f"an image input cannot be put before a {state} model", lever="make the inputs featuremap"
        )
    entries = _prepare_inputs(job, module)
    data = _open_data(job, entries, log)
    with tempfile.TemporaryDirectory(prefix=f".{job.prefix}.", dir=job.folder) as staging:
        outcome = _stages(job, march, module, state, data, Path(staging), log)
        files = tuple(path.replace(job.folder / path.name) for path in sorted(Path(staging).iterdir()))
    log.info("The hb_compile completes running.")
    return replace(outcome, files=(*files, job.folder / "hb_compile.log"))


def _stages(job: Job, march: March, module: Module, state: str, data: _Data, staging: Path, log: Log) -> Outcome:
    from hbir.module import save
    from tools.summary import write_summary

    reference = None if state == "quantised" else module
    calibrated_on = 0
    if state == "float":
        calibrated_on = len(data.calibration or ())
        module = _calibrate(job, module, data.calibration, log)
    elif data.calibration is not None:
        log.warning(f"the model is {state} already: calibration data changes nothing")
    if job.skip in ("export", "convert"):
        save(module, staging / f"{job.prefix}_calibrated_model.bc")
        return Outcome(job, march, (), calibrated_on)
    if state != "quantised":
        with _reproducible(job, module, ["hb_compile", "--skip", "compile"], log):
            module = _convert(module, march, log)
    quantized = module
    save(quantized, staging / f"{job.prefix}_quantized_model.bc")
    if job.skip == "compile":
        return Outcome(job, march, (), calibrated_on, quantized)
    with _reproducible(job, quantized, ["hb_compile", "--core-num", str(job.core_num)], log):
        hbm = _compile(job, quantized, march, staging / f"{job.prefix}.hbm", log)
    evaluation = _evaluate(hbm, quantized, reference, data, log)
    cosines = _layer_cosines(reference, state, quantized, data)
    with log.stage("perf", "estimate performance"):
        from backends.nash.perf import report, write_reports

        perf = report(hbm.models[0], file_bytes=(staging / f"{job.prefix}.hbm").stat().st_size)
        write_reports(perf, staging, job.prefix)
    outcome = Outcome(job, march, (), calibrated_on, quantized, hbm, evaluation, cosines, perf)
    write_summary(outcome, staging)
    return outcome
