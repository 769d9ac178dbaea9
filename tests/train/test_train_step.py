"""One step keeps nothing of a micro-batch that the next one would have to make room for."""

import weakref

from tests.distributed.training import SilentLog, batch, make_model, micro_batches, run_config
from train.train_step import train_step


class PlainEngine:
    """DeepSpeed's engine without DeepSpeed. Counts the last hidden states alive when a forward pass begins."""

    def __init__(self):
        self.model, self.hidden, self.num_alive = make_model(), [], []
        self.model.lm_head.register_forward_hook(lambda _, inputs, output: self.hidden.append(weakref.ref(inputs[0])))

    def __call__(self, *arguments, **keywords):
        self.num_alive.append(sum(hidden() is not None for hidden in self.hidden))
        return self.model(*arguments, **keywords)

    def backward(self, loss) -> None:
        loss.backward()

    def step(self) -> None: ...


def test_the_hidden_states_of_a_micro_batch_are_gone_when_the_next_one_begins():
    engine = PlainEngine()
    train_step(engine, micro_batches(batch(0), run_config(), 0, 1), SilentLog())
    assert len(engine.hidden) == len(engine.num_alive) == 4
    assert engine.num_alive == [0, 0, 0, 0]
