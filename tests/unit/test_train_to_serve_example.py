"""The model of the training tutorial, without a cluster: it learns what it is not told."""

from pathlib import Path

import pytest
import tensorflow as tf

from examples.train_to_serve import model, train
from tessera.errors import InvalidArgumentError

USERS, FILMS = 32, 16


def test_it_finds_out_who_likes_what() -> None:
    tf.random.set_seed(1)
    films = model.Films(USERS, FILMS, dim=8)
    step = tf.function(films.step)
    losses = [float(step(batch, 0.5)) for batch in model.examples(USERS, FILMS, 32).take(400)]
    assert losses[0] == pytest.approx(0.69, abs=0.05)
    users = tf.range(USERS, dtype=tf.int64)
    ranked = films.rank(users, tf.tile(tf.range(FILMS, dtype=tf.int64)[None], [USERS, 1]))["films"].numpy()
    liked = ranked[:, : FILMS // model.GENRES] % model.GENRES == users.numpy()[:, None] % model.GENRES
    assert liked.mean() > 0.9


def test_examples_are_of_the_little_world() -> None:
    for user, liked, other in model.examples(USERS, FILMS, 64).take(3).as_numpy_iterator():
        assert (user % model.GENRES == liked % model.GENRES).all()
        assert (user % model.GENRES != other % model.GENRES).all()
        assert (liked < FILMS).all()
        assert (other < FILMS).all()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("--ps 0", "--ps: got 0"),
        ("--steps 0", "--steps: got 0"),
        ("--films 12", "--films: got 12, expected a multiple of 8"),
        ('--cluster {"worker":[]}', "--cluster: expected"),
    ],
)
def test_options_that_cannot_be_are_refused(tmp_path: Path, arguments: str, says: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        train.check(train.parser().parse_args([str(tmp_path / "new"), *arguments.split()]))
    assert says in caught.value.message
