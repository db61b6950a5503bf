"""What vLLM is told is what a request says; the engine itself needs a GPU and is not run here."""

from pathlib import Path

from tiny_students import settings

from tutelage.serving.engine_vllm import MEMORY, engine_arguments, sampling_arguments
from tutelage.serving.types import Sampling


def test_all_of_a_requests_sampling_arrives() -> None:
    sampling = Sampling(max_new_tokens=9, temperature=0.7, top_p=0.8, stop=("x",), seed=3)
    given = sampling_arguments(sampling, frozenset({5, 2}))
    assert (given["max_tokens"], given["temperature"], given["top_p"], given["seed"]) == (9, 0.7, 0.8, 3)
    assert (given["stop_token_ids"], given["ignore_eos"]) == ([2, 5], True)
    assert "stop" not in given  # it would need vLLM to make text of the tokens, which is done here


def test_two_versions_fit_side_by_side(tmp_path: Path) -> None:
    given = engine_arguments(tmp_path, "student@3", settings(tmp_path, batch=5, max_length=777))
    assert 2 * MEMORY < 1
    assert (given["max_model_len"], given["max_num_seqs"], given["served_model_name"]) == (777, 5, "student@3")
