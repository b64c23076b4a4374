"""What a run or a cross-validation leaves in its folder, by name; most of it goes to the Hub too."""

METRICS = "metrics.json"  # every figure of a run; once it is there, nothing is left to do but to forget the checkpoint
CV = "cv.json"  # what a cross-validation comes to, once all its runs, in folders below, are finished
CHECKPOINT = "checkpoint.safetensors"
SETTINGS = "settings.yaml"
SPLIT = "split.json"
PREDICTIONS = "predictions.csv"
REPORT = "classification_report.txt"
HISTORY = "history.csv"
LEFT_OUT = "left_out.csv"
CARD = "README.md"
NAMELESS = "PATH_OR_HUB_ID"  # stands in a card for the model's name, until it is pushed and has one
CONFUSION, RELIABILITY, CURVES = "confusion.png", "reliability.png", "learning_curves.png"  # each as SVG too
LAST, LOGS = "last", "logs"  # folders: the model of the last epoch, and what trackers write
WEIGHTS, CONFIG, FEATURES = "model.safetensors", "config.json", "preprocessor_config.json"  # as Transformers name them
UNSEEN_SPEAKERS, SHARED_SPEAKERS = "unseen speakers", "speakers shared with training"  # of whom a card's figures are
REFUSED = "training_voices_refused"  # in metrics.json: the share of them that a model calls unlike them

SAY_THAT_IT_RAN = (METRICS, CHECKPOINT, CV, SETTINGS)
# By a run or a cross-validation, but for the code of a model, which comes anew with the next one. The settings go last,
# so that a removal that is broken off can be made again.
WRITTEN = (
    *(METRICS, CHECKPOINT, CV, SPLIT, PREDICTIONS, REPORT, HISTORY, LEFT_OUT, CARD, WEIGHTS, CONFIG, FEATURES),
    *(picture for png in (CONFUSION, RELIABILITY, CURVES) for picture in (png, png.replace(".png", ".svg"))),
    *(LAST, LOGS, SETTINGS),
)
