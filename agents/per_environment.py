"""Several policies as one: each episode is played by the policy of its environment."""

from collections.abc import Mapping, Sequence

from tutelage.errors import UnknownName
from tutelage.types import Context, Policy, Reply


class PerEnvironment:
    """Passes every context on to the policy of its environment, as one batch per policy."""

    def __init__(self, policies: Mapping[str, Policy]) -> None:
        """`policies` by the short name of the environment."""
        self._policies = dict(policies)

    @property
    def label(self) -> str:
        return " + ".join(dict.fromkeys(policy.label for policy in self._policies.values()))

    def act(self, contexts: Sequence[Context]) -> list[Reply]:
        """One reply per context, in order.

        Raises:
            UnknownName: there is no policy for an environment.
        """
        replies: dict[int, Reply] = {}
        for name in dict.fromkeys(context.environment for context in contexts):
            if name not in self._policies:
                raise UnknownName(f"no policy here acts in {name!r}; there is one for {', '.join(self._policies)}")
            places = [place for place, context in enumerate(contexts) if context.environment == name]
            answers = self._policies[name].act([contexts[place] for place in places])
            replies |= dict(zip(places, answers, strict=True))
        return [replies[place] for place in range(len(contexts))]

    def forget(self, keys: Sequence[str]) -> None:
        for policy in self._policies.values():
            policy.forget(keys)
