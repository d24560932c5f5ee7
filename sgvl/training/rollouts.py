"""Rollouts by vLLM: what the engine has seen is what the update sees, checked batch by batch.

TRL sends a prompt whose picture is expanded into its tokens already. An engine that expands it once
more answers fluently, from another prompt than the one that the update scores; the loss shows
nothing of it (TRL issues 6294 and 6401).
"""

from collections.abc import Sequence
from importlib.util import find_spec

from sgvl.common.errors import nearest

MODES = ("colocate", "server")
# Mean distance of a token's log-probabilities, engine to trainer; ours.
APART = 0.5
DISTANCE = "sampling/sampling_logp_difference/mean"  # in TRL's log


class OtherPromptError(RuntimeError):
    """Replies were generated from something else than what the update scores."""


def setting_problems(settings: dict) -> list[str]:
    """List what keeps vLLM from generating rollouts: an unknown mode, or no vLLM at all."""
    if not settings.get("use_vllm"):
        return []
    mode = settings.get("vllm_mode", MODES[0])
    problems = (
        [] if mode in MODES else [f"settings: vllm_mode {mode!r}; {nearest(str(mode), MODES)}"]
    )
    if find_spec("vllm") is None:
        problems.append("settings: use_vllm: vllm is not installed; pip install -e '.[gpu]'")
    return problems


def guard(trl_trainer) -> None:
    """Make a GRPO trainer whose rollouts vLLM generates raise OtherPromptError for other prompts.

    Each batch, the tokens of the prompts that the engine returns are compared with those sent. A
    server returns pictures' prompts as they were sent, whatever it made of them; so at each row of
    the log, the engine's log-probabilities are compared with the trainer's own, too.
    """
    engine = getattr(trl_trainer, "vllm_generation", None)
    if engine is None:
        return
    from transformers import TrainerCallback

    generate = engine.generate

    def checked(**arguments):
        result = generate(**arguments)
        need_same(arguments["prompts"], result[0])
        return result

    class Near(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **_):
            if (apart := (logs or {}).get(DISTANCE, 0.0)) > APART:
                raise OtherPromptError(
                    f"step {state.global_step}: log-probabilities of vLLM and of the update are "
                    f"{apart:.2f} apart a token, {APART} at most: it saw another prompt or other "
                    "weights"
                )

    engine.generate = checked
    trl_trainer.add_callback(Near())


def need_same(sent: Sequence[Sequence[int]], seen: Sequence[Sequence[int]]) -> None:
    """Raise OtherPromptError for the first prompt that an engine saw in other tokens than sent."""
    for place, (ours, its) in enumerate(zip(sent, seen, strict=True)):
        if list(ours) != list(its):
            raise OtherPromptError(
                f"prompt {place} of the batch: vLLM saw {len(its)} tokens, and the update sees "
                f"{len(ours)}; set vllm_mode: server, or use_vllm: false"
            )
