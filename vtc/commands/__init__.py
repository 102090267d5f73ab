"""One thin file a subcommand: flags in, one library call, rows out."""

from vtc.commands.ask import ask
from vtc.commands.benchmarks import benchmarks
from vtc.commands.catalog import catalog
from vtc.commands.check_data import check_data
from vtc.commands.compare import compare
from vtc.commands.compressors import compressors
from vtc.commands.encode import encode
from vtc.commands.estimate import estimate
from vtc.commands.evaluate import evaluate
from vtc.commands.export import export
from vtc.commands.finetune import finetune
from vtc.commands.fit import fit
from vtc.commands.import_model import import_model
from vtc.commands.lab import lab
from vtc.commands.plan import plan
from vtc.commands.plot import plot
from vtc.commands.profile import profile
from vtc.commands.recommend import recommend
from vtc.commands.score import score
from vtc.commands.show import show
from vtc.commands.train_projector import train_projector

COMMANDS: tuple = (
    lab,
    check_data,
    encode,
    catalog,
    compressors,
    estimate,
    train_projector,
    finetune,
    import_model,
    export,
    benchmarks,
    evaluate,
    ask,
    score,
    show,
    fit,
    compare,
    plan,
    plot,
    profile,
    recommend,
)
