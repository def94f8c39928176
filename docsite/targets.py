"""Tables with the targets of a measurement, and whether each was reached."""

from benchmarks import harness, readme


def first_hour() -> str:
    """Return the waiting times that have a target: the target, the time, and whether it was reached."""
    rows = [
        {
            "command": row["command"],
            "seconds until": row["seconds until"],
            "target": f"{float(target):g}",
            "median": float(row["today"]),
            "slowest round": float(row["today, slowest"]),
            "reached": "yes" if float(row["today"]) <= float(target) else "no",
        }
        for row in readme.select("first_hour")
        if (target := readme.cell_of(row, "target"))
    ]
    return f"{harness.table(rows)}\n\n{readme.block('first_hour', ['machine'])}"
