import pandas as pd

from afterglow.callbacks.alerts import alert_first_emerged


class Alerts:
    def __init__(self):
        self.sent = []

    def alert(self, title, text):
        self.sent.append((title, text))


def rows(history):
    """Rows of plant_memorized from {(plant_id, kind): values at the steps 0, 10, 20, ...}."""
    return pd.DataFrame(
        [
            {
                "step": 10 * i,
                "plant_id": number,
                "kind": kind,
                "caption": f"image {number}",
                "seed": -1,
                "measure": "plant_memorized",
                "value": float(value),
            }
            for (number, kind), values in history.items()
            for i, value in enumerate(values)
        ]
    )


def test_alert_first_emerged_is_sent_once_for_each_kind_when_a_plant_is_confirmed():
    measurements = rows(
        {(1, "global"): [0, 1, 1, 1, 1], (2, "global"): [0, 0, 1, 1, 1], (3, "local"): [0, 0, 1, 0, 1], (4, "phantom"): [1] * 5}
    )
    logger = Alerts()
    for step in range(0, 50, 10):
        alert_first_emerged(logger, measurements[measurements["step"] <= step], step)
    assert logger.sent == [("First global plant memorized", "'image 1' emerged between steps 0 and 10; confirmed at step 30.")]
