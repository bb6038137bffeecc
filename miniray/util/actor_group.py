"""`ActorGroup`: several actors of one class, called together.

Source: https://docs.ray.io/en/releases-1.13.0/ray-core/package-ref.html (``ray.util.actor_group``)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import miniray
from miniray.util.annotations import Deprecated


@dataclass
class ActorWrapper:
    """An actor of a group, and what its `actor_metadata` method said of it."""

    actor: Any
    metadata: Any


@dataclass
class ActorConfig:
    """How the actors of a group are made."""

    num_cpus: float
    num_gpus: float
    resources: dict[str, float] | None
    init_args: tuple[Any, ...]
    init_kwargs: dict[str, Any]


class ActorGroupMethod:
    """A method of all actors of a group: ``group.method.remote(...)`` calls each, and returns the list of refs."""

    def __init__(self, actor_group: ActorGroup, method_name: str) -> None:
        self.actor_group = actor_group
        self._method_name = method_name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(
            "ActorGroup methods cannot be called directly. Instead of running "
            f"'object.{self._method_name}()', try 'object.{self._method_name}.remote()'."
        )

    def remote(self, *args: Any, **kwargs: Any) -> list[Any]:
        """Call the method of each actor."""
        return [getattr(actor.actor, self._method_name).remote(*args, **kwargs) for actor in self.actor_group.actors]


@Deprecated(
    message="For stateless/task processing, use ray.util.multiprocessing, see details in "
    "https://docs.ray.io/en/releases-2.60.0/ray-more-libs/multiprocessing.html. For stateful/actor processing such as "
    "batch prediction, use Datasets.map_batches(compute=ActorPoolStrategy, ...), see details in "
    "https://docs.ray.io/en/releases-2.60.0/data/api/dataset.html#ray.data.Dataset.map_batches.",
    warning=True,
)
class ActorGroup:
    """Actors of one class. Any attribute that is none of the group's is a method of theirs.

    Args:
        actor_cls: the class, not decorated.
        num_actors: how many.
        num_cpus_per_actor, num_gpus_per_actor, resources_per_actor: what each holds.
        init_args, init_kwargs: for the constructor.

    Raises:
        ValueError: no actors, or less than no resources.
    """

    def __init__(
        self,
        actor_cls: type,
        num_actors: int = 1,
        num_cpus_per_actor: float = 1,
        num_gpus_per_actor: float = 0,
        resources_per_actor: dict[str, float] | None = None,
        init_args: tuple[Any, ...] | None = None,
        init_kwargs: dict[str, Any] | None = None,
    ) -> None:
        if num_actors <= 0:
            raise ValueError(
                f"The provided `num_actors` must be greater than 0. Received num_actors={num_actors} instead."
            )
        if num_cpus_per_actor < 0 or num_gpus_per_actor < 0:
            raise ValueError(
                "The number of CPUs and GPUs per actor must not be negative. Received "
                f"num_cpus_per_actor={num_cpus_per_actor} and num_gpus_per_actor={num_gpus_per_actor}."
            )
        self.actors: list[ActorWrapper] = []
        self.num_actors = num_actors
        self.actor_config = ActorConfig(
            num_cpus_per_actor, num_gpus_per_actor, resources_per_actor, init_args or (), init_kwargs or {}
        )
        self._remote_cls: Any = miniray.remote(
            num_cpus=num_cpus_per_actor, num_gpus=num_gpus_per_actor, resources=resources_per_actor
        )(actor_cls)
        self.start()

    def start(self) -> None:
        """Start the actors.

        Raises:
            RuntimeError: they run.
        """
        if self.actors:
            raise RuntimeError(
                "The actors have already been started. Please call `shutdown` first if you want to restart them."
            )
        self.add_actors(self.num_actors)

    def add_actors(self, num_actors: int) -> None:
        """Start so many more."""
        config = self.actor_config
        actors = [self._remote_cls.remote(*config.init_args, **config.init_kwargs) for _ in range(num_actors)]
        metadata: list[Any] = [None] * num_actors
        if hasattr(self._remote_cls, "actor_metadata"):
            metadata = miniray.get([actor.actor_metadata.remote() for actor in actors])
        self.actors += [ActorWrapper(actor, said) for actor, said in zip(actors, metadata, strict=True)]

    def remove_actors(self, actor_indexes: list[int]) -> None:
        """Give up the actors at these places."""
        gone = set(actor_indexes)
        self.actors = [actor for index, actor in enumerate(self.actors) if index not in gone]

    def shutdown(self, patience_s: float = 5) -> None:
        """End the actors.

        Args:
            patience_s: seconds that they have to end by themselves; 0: they are killed.
        """
        if patience_s > 0:
            ended = [actor.actor.__ray_terminate__.remote() for actor in self.actors]
            if ended:
                miniray.wait(ended, num_returns=len(ended), timeout=patience_s)
        for actor in self.actors:
            miniray.kill(actor.actor)
        self.actors = []

    @property
    def actor_metadata(self) -> list[Any]:
        """What the actors said of themselves."""
        return [actor.metadata for actor in self.actors]

    def __getattr__(self, item: str) -> ActorGroupMethod:
        if "actors" in self.__dict__ and not self.actors:
            raise RuntimeError("This ActorGroup has been shutdown. Please start it again.")
        return ActorGroupMethod(self, item)

    def __len__(self) -> int:
        return len(self.actors)

    def __getitem__(self, item: int) -> ActorWrapper:
        return self.actors[item]
