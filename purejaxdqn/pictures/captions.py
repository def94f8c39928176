"""What the pictures of a report show, a sentence or two each."""

_CAPTIONS = {
    "learning_curve": "The return of training and of greedy episodes against environment steps. Thin lines are seeds; "
    "the thick line is their interquartile mean (IQM), the shaded area its 95% interval, or the range of fewer "
    "than five seeds.",
    "report": "The mean return of training episodes, its moving average, the loss, and the share of greedy episodes "
    "that solve the environment, or the Q-value if no return counts as solved.",
    "comparison": "The greedy return of several runs during training, as the IQM of their seeds with its 95% "
    "interval, or with the range of fewer than five seeds.",
    "curves": "The greedy return of each point during training, as the IQM of its seeds with its 95% interval, or "
    "with the range of fewer than five seeds. The best points are named; the others are grey.",
    "ranking": "The points, best first. Dots are seeds, the line is their IQM, the bar its 95% interval, or "
    "the range of fewer than five seeds.",
    "heat_map": "The IQM of the greedy return over the first two swept numbers; the best have the strongest colours.",
    "performance_profile": "The share of runs above each return (Agarwal et al. 2021). A curve further up is better. "
    "The shaded area is the 95% interval; fewer than five seeds have none.",
    "probability_of_improvement": "The probability that a run of the row's point scores higher than a run of the "
    "column's point, with its 95% interval from five seeds on. Blue is likely, red is not.",
    "history": "The score of each trial, and the best score so far.",
    "slices": "The score of each trial against each parameter. Later trials have stronger colours; the star is the "
    "best one.",
    "parallel_coordinates": "Each line is a trial, which crosses the axes at its parameters. The best trials have the "
    "strongest colours.",
    "scores": "The number of trials by score. The ticks are the edges of the bins, and each mark is a trial.",
    "radar": "The place of each parameter of the best trial within its range.",
    "importances": "How much each parameter matters for a good score (PED-ANOVA, Watanabe et al. 2023).",
}


def caption_of(stem: str, name: str) -> str:
    """What a picture shows, given the stem and the name of its file; its name if it is not one of ours."""
    if stem.startswith("against_"):
        key = stem.removeprefix("against_")
        return f"The greedy return against {key}. A large dot is the IQM of a point, small dots are its seeds."
    return _CAPTIONS.get(stem, name)
