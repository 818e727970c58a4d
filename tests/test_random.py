import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from skboundary import TorchNearestNeighbors
from skboundary._random import draw_seed, forked_rng, spawn_generators, torch_threads
from skboundary.functional import _threads


def test_the_seed_is_one_draw_of_random_state():
    expected = np.random.RandomState(3).randint(2**31 - 1)
    assert draw_seed(3) == expected
    state = np.random.RandomState(3)
    assert draw_seed(state) == expected and draw_seed(state) != expected


def test_threads_use_the_global_generator_one_at_a_time():
    with forked_rng(0):
        want = torch.rand(50)

    def draw(_):
        with forked_rng(0):
            return torch.cat([torch.rand(10) for _ in range(5)])

    with ThreadPoolExecutor(4) as pool:
        assert all(torch.equal(got, want) for got in pool.map(draw, range(200)))


def test_spawned_generators_are_distinct_and_reproducible():
    draws = [torch.rand(4, generator=g) for g in spawn_generators(5, 3)]
    again = [torch.rand(4, generator=g) for g in spawn_generators(5, 3)]
    assert all(torch.equal(a, b) for a, b in zip(draws, again))
    assert not torch.equal(draws[0], draws[1]) and not torch.equal(draws[1], draws[2])


def test_forked_rng_restores_the_global_generator():
    before = torch.get_rng_state()
    with pytest.raises(KeyError), forked_rng(1):
        first = torch.rand(3)
        raise KeyError
    with forked_rng(1):
        assert torch.equal(torch.rand(3), first)
    assert torch.equal(torch.get_rng_state(), before)


def in_new_thread(function, *args):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function, *args).result()


def test_blocks_at_the_same_time_restore_the_number_of_threads(two_threads):
    begun, ended = threading.Event(), threading.Event()

    def block():
        with torch_threads(1):
            begun.set()
            ended.wait()
        return torch.get_num_threads()

    with ThreadPoolExecutor(1) as pool:
        with torch_threads(1):
            other = pool.submit(block)  # begins, and ends after this one
            begun.wait()
            with torch_threads(2):
                pass
            assert torch.get_num_threads() == 1
        ended.set()
        assert other.result() == torch.get_num_threads() == 2
    assert in_new_thread(torch.get_num_threads) == 2


def test_threads_that_search_at_the_same_time_keep_the_number_of_threads(two_threads):
    X = np.random.default_rng(0).normal(size=(300, 3))
    near = TorchNearestNeighbors(n_jobs=1).fit(X)
    for _ in range(10):
        with ThreadPoolExecutor(4) as pool:
            [*pool.map(near.kneighbors, [X] * 8)]
        assert in_new_thread(torch.get_num_threads) == torch.get_num_threads() == 2


def test_true_is_one_job():
    with torch_threads(True):
        assert torch.get_num_threads() == 1


def test_ctrl_c_while_a_block_begins_leaves_no_block_open(two_threads, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(_threads, "_in_new_thread", interrupted)
        with pytest.raises(KeyboardInterrupt), torch_threads(1):
            pass
    assert _threads._open == 0
    with torch_threads(1):
        pass
    assert in_new_thread(torch.get_num_threads) == torch.get_num_threads() == 2
