"""Federated rounds by MONAI's client over the bundle: what the server sends is kept, scored, and trained on."""

import pytest
import torch
from ignite.engine import Events
from monai.fl.client import MonaiAlgo
from monai.fl.utils.constants import ExtraItems, WeightType
from monai.fl.utils.exchange_object import ExchangeObject

from tests.annotation.conftest import write_sample
from tests.bundles.helpers import BUNDLE

ROUNDS = 3
SMALL = {
    "dataset_name": "folder", "network_name": "vit_tiny_test", "preset": "lora", "image_size": 64, "crop_size": 32,
    "precision": "fp32", "tracker#trackers": [], "crops_per_image": 2, "learning_rate": 1e-3, "rounds": ROUNDS,
}  # fmt: skip


class Client:
    """One hospital, with images of its own."""

    def __init__(self, folder, number):
        self.folder = folder / str(number)
        data = self.folder / "data"
        for split in ("training", "validation", "test"):
            (data / split).mkdir(parents=True, exist_ok=True)
            image, mask = write_sample(data / split, 10 * number + len(split), 64)
            mask.rename(mask.with_name(f"{image.stem}_mask.png"))

    def start(self):
        options = {**SMALL, "dataset_dir": str(self.folder / "data"), "output_dir": str(self.folder / "run")}
        self.algo = MonaiAlgo(
            str(BUNDLE), 1, send_weight_diff=False, config_train_filename="configs/train.yaml", train_kwargs=options,
            config_evaluate_filename="configs/train.yaml", eval_kwargs=options,
        )  # fmt: skip
        self.algo.initialize({ExtraItems.CLIENT_NAME: self.folder.name})
        self.started_with, self.rates = [], []
        self.algo.trainer.add_event_handler(Events.EPOCH_STARTED, lambda _: self.started_with.append(self.weights()))
        self.optimizer = self.algo.trainer.optimizer
        return self

    def weights(self):
        return {name: tensor.clone() for name, tensor in self.algo.trainer.network.state_dict().items()}

    def round(self, weights):
        self.algo.train(ExchangeObject(weights=weights, weight_type=WeightType.WEIGHTS))
        self.rates.append(self.optimizer.param_groups[0]["lr"])
        return self.algo.get_weights().weights

    def score(self, weights):
        return self.algo.evaluate(ExchangeObject(weights=weights, weight_type=WeightType.WEIGHTS)).metrics


def averaged(sent):
    return {name: sum(one[name] for one in sent) / len(sent) for name in sent[0]}


def same(first, second):
    return all(torch.equal(first[name], second[name]) for name in first)


def test_three_rounds_of_two_clients(tmp_path):
    clients = [Client(tmp_path, number).start() for number in (1, 2)]
    weights, sent, dice = clients[0].weights(), [], []
    for _ in range(ROUNDS):
        sent.append(weights)
        weights = averaged([client.round(weights) for client in clients])
        dice.append([client.score(weights)["val_dice"] for client in clients])
    for client in clients:
        assert [same(had, got) for had, got in zip(client.started_with, sent, strict=True)] == ROUNDS * [True]
        assert client.algo.trainer.state.epoch == ROUNDS
        first, second, last = client.rates
        assert first > second > 0
        assert last == pytest.approx(0, abs=1e-9)
    assert not same(sent[1], sent[0])
    assert all(0 < score < 1 for scores in dice for score in scores)
    assert dice[0] != dice[-1]
    assert clients[0].score(weights)["val_dice"] == dice[-1][0]

    back = Client(tmp_path, 1).start()
    assert back.algo.trainer.state.epoch == ROUNDS
    back.round(sent[1])
    assert same(back.started_with[0], sent[1])
