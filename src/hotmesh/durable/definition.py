"""What a function or class of the user's is to us: read once, frozen, with its mistakes said when it is read.

`read_workflow` and `read_activity` take what is decorated and what is not; `workflows_by_name` and `activities_by_name`
take all that a worker is given, in whatever form, and find two of one name.
"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Generic, ParamSpec, TypeVar, cast

from hotmesh.durable.clocks import check_clocks
from hotmesh.durable.convert import DEFAULT_CONVERTER, Converter
from hotmesh.durable.options import ActivityOptions, StepOptions, WorkflowOptions
from hotmesh.durable.signature import Signature, hints_of
from hotmesh.errors import ConfigError

P = ParamSpec("P")
R = TypeVar("R")

WORKFLOW: Final = "__hotmesh_workflow__"
ACTIVITY: Final = "__hotmesh_activity__"
RUN: Final = "__hotmesh_run__"
SIGNAL: Final = "__hotmesh_signal__"
"""Attributes by which decorators mark what they have read."""

_Signatures = dict[Converter, Signature]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Definition(Generic[P, R]):
    """A function by its name, and how its values are stored."""

    name: str
    """By which it is registered, started and recorded."""
    function: Callable[P, Any]
    """What is called: of a class of workflows its `run`, unbound."""
    local: Mapping[str, Any] | None = field(default=None, repr=False)
    """Names of the function in which it was defined, for its annotations."""
    signatures: _Signatures = field(default_factory=dict, repr=False)

    def signature(self, converter: Converter = DEFAULT_CONVERTER) -> Signature:
        """Its parameters and result for this converter, compiled once. Raises ConfigError for what cannot be stored."""
        found = self.signatures.get(converter)
        if found is None:
            found = self.signatures[converter] = self._compiled(converter)
        return found

    def _compiled(self, converter: Converter) -> Signature:
        try:
            hints = hints_of(self.function, self.local)
        except (NameError, TypeError, SyntaxError, AttributeError) as error:
            raise ConfigError(
                f"the annotations of {self.name} cannot be read: {error}; import what they name at the top of the "
                f"module, and not only for type checkers"
            ) from error
        return Signature(self.name, self._parameters(), hints, converter)

    def _parameters(self) -> inspect.Signature:
        return inspect.signature(self.function)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SignalDefinition(Definition[P, R]):
    """A handler of signals: a method that `@workflow.signal` marks. It may be async or not."""

    def _parameters(self) -> inspect.Signature:
        return _without_self(inspect.signature(self.function))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WorkflowDefinition(Definition[P, R]):
    """A workflow: an async function, or a class with a method that `@workflow.run` marks."""

    options: WorkflowOptions
    made_of: Callable[..., Any]
    """The function or class itself, as the user has it."""
    signals: Mapping[str, SignalDefinition[Any, Any]] = field(default_factory=dict)
    """The handlers of a class, by the names of their signals."""

    @property
    def is_class(self) -> bool:
        """Whether each execution has an instance."""
        return isinstance(self.made_of, type)

    def instance(self) -> Any:
        """A new instance of a class; None for a function. Runs code of the user's: call it inside the strand."""
        return self.made_of() if self.is_class else None

    def begin(
        self, instance: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Coroutine[Any, Any, R]:
        """The coroutine of an execution, not yet started; `instance` is what `instance()` gave."""
        call = cast("Callable[..., Coroutine[Any, Any, R]]", self.function)
        return call(instance, *args, **kwargs) if self.is_class else call(*args, **kwargs)

    def _parameters(self) -> inspect.Signature:
        found = inspect.signature(self.function)
        return _without_self(found) if self.is_class else found


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ActivityDefinition(Definition[P, R]):
    """An activity or a step: any function. `is_async`: runs on the loop; else in a thread."""

    is_async: bool
    options: ActivityOptions
    is_step: bool = False
    """Whether a call of it in a workflow is a step of that: `@activity.step`."""

    step_options: StepOptions = field(init=False, repr=False)
    """What of its options is meant for a step in this process."""

    def __post_init__(self) -> None:
        known = StepOptions.__dataclass_fields__
        given = {name: value for name, value in self.options.given().items() if name in known}
        object.__setattr__(self, "step_options", StepOptions(**given))


class OfMethod:
    """The definition of a method, for whichever object it is called on; compiled once for all of them."""

    __slots__ = ("_definition", "_signatures")

    def __init__(self, definition: ActivityDefinition[Any, Any]) -> None:
        self._definition = definition
        self._signatures: _Signatures = {}

    def bound_to(self, owner: Any) -> ActivityDefinition[Any, Any]:
        """That of the method of this object."""
        method = types.MethodType(self._definition.function, owner)
        return replace(self._definition, function=method, signatures=self._signatures)


def is_method(function: Any) -> bool:
    """Whether a function stands in the body of a class and takes its object as `self`."""
    owner = getattr(function, "__qualname__", "").rpartition(".")[0]
    if not owner or owner.endswith("<locals>") or not isinstance(function, types.FunctionType):
        return False
    return next(iter(inspect.signature(function).parameters), None) == "self"


def read_workflow(
    given: Callable[..., Any],
    options: WorkflowOptions | None = None,
    *,
    local: Mapping[str, Any] | None = None,
) -> WorkflowDefinition[Any, Any]:
    """The definition of a workflow function or class, decorated or not. Raises ConfigError that says what is wrong with it."""
    marked = _marked(given, WORKFLOW)
    if marked is not None and options is None:
        return cast("WorkflowDefinition[Any, Any]", marked)
    if _marked(given, ACTIVITY) is not None:
        raise ConfigError(
            f"{given.__name__} is an activity or a step, and no workflow: a workflow is an `async def` with @workflow.defn "
            f"that calls it"
        )
    options = options or WorkflowOptions()
    if isinstance(given, type):
        return _read_class(given, options, local)
    name = _function_name(given, "a workflow", options.name)
    if isinstance(given, types.MethodType):
        raise ConfigError(
            f"{name} is a method of an object, which no other process has: decorate its class with @workflow.defn and "
            f"the method with @workflow.run, or write a function"
        )
    _check_is_async(given, name)
    check_clocks(given, name)
    return WorkflowDefinition(name=name, function=given, made_of=given, local=local, options=options)


def read_activity(
    given: Callable[..., Any],
    options: ActivityOptions | None = None,
    *,
    is_step: bool = False,
    local: Mapping[str, Any] | None = None,
    what: str | None = None,
) -> ActivityDefinition[Any, Any]:
    """The definition of an activity: a function or a bound method, async or not, decorated or not. Raises ConfigError."""
    marked = _marked(given, ACTIVITY)
    if marked is not None and options is None:
        if isinstance(given, types.MethodType):
            return cast(
                "ActivityDefinition[Any, Any]", replace(marked, function=_bound(given, marked), signatures={})
            )
        return cast("ActivityDefinition[Any, Any]", marked)
    options = options or ActivityOptions()
    if isinstance(given, type):
        raise ConfigError(
            f"{given.__name__} is a class: give an object of it, whose decorated methods are the activities, or functions"
        )
    name = _function_name(given, what or ("a step" if is_step else "an activity"), options.name)
    if _marked(given, WORKFLOW) is not None:
        raise ConfigError(
            f"{name} is a workflow, so it cannot be {what or 'an activity'}: it goes to workflows=[...] of a Worker; "
            f"`await {name}(...)` in another workflow makes it part of that"
        )
    is_async = inspect.iscoroutinefunction(given)
    if inspect.isgeneratorfunction(given) or inspect.isasyncgenfunction(given):
        raise ConfigError(f"{name} has a yield: an activity returns one value, a list for several")
    if is_step and not is_async:
        raise ConfigError(
            f"{name} is called directly in workflows, so it must be awaited: write `async def {name}`; a blocking "
            f"function gets @activity.defn, and is called by workflow.step({name}, ...), which runs it in a thread"
        )
    return ActivityDefinition(
        name=name, function=given, local=local, is_async=is_async, options=options, is_step=is_step
    )


def workflows_by_name(given: Any) -> dict[str, WorkflowDefinition[Any, Any]]:
    """All workflows of a worker: a function or class, a list of them, or a dict by name. Raises ConfigError."""
    found: dict[str, WorkflowDefinition[Any, Any]] = {}
    for name, item in _items(given, "workflows"):
        definition = read_workflow(item) if name is None else _renamed(read_workflow(item), name)
        _add(found, definition, "workflows", definition.made_of)
    return found


def activities_by_name(given: Any) -> dict[str, ActivityDefinition[Any, Any]]:
    """All activities of a worker: a function, an object or module with decorated ones, a list, or a dict by name."""
    found: dict[str, ActivityDefinition[Any, Any]] = {}
    for name, item in _items(given, "activities"):
        for member in [item] if callable(item) else _members(item):
            definition = read_activity(member) if name is None else _renamed(read_activity(member), name)
            _add(found, definition, "activities", member)
    return found


def _items(given: Any, what: str) -> Iterable[tuple[str | None, Any]]:
    if isinstance(given, Mapping):
        for name in given:
            if not isinstance(name, str) or not name:
                raise ConfigError(f"the keys of {what} are the names of functions, not {name!r}")
        return list(given.items())
    if isinstance(given, list | tuple | set | frozenset):
        return [(None, item) for item in given]
    return [] if given is None else [(None, given)]


def _members(owner: Any) -> list[Any]:
    """The decorated functions of an object or a module."""
    found = [
        getattr(owner, name)
        for name in sorted(dir(type(owner)) if not isinstance(owner, types.ModuleType) else dir(owner))
        if _marked(inspect.getattr_static(owner, name, None), ACTIVITY) is not None
    ]
    if not found:
        raise ConfigError(
            f"activities has {owner!r:.200}, which is no function and has no function that @activity.defn or "
            f"@activity.step marks"
        )
    return found


Any_Definition = TypeVar("Any_Definition", bound=Definition[Any, Any])


def _add(found: dict[str, Any_Definition], definition: Any_Definition, what: str, made_of: Any) -> None:
    other = found.setdefault(definition.name, definition)
    if other is not definition and other.function is not definition.function:
        raise ConfigError(
            f"{what} has two functions of the name {definition.name}: {_place(other.function)} and {_place(made_of)}; "
            f"give one of them another by name="
        )


def _renamed(definition: Any_Definition, name: str) -> Any_Definition:
    return definition if definition.name == name else replace(definition, name=name, signatures={})


def _marked(given: Any, mark: str) -> Any:
    """What a decorator has left; not on a class below the one that it has decorated."""
    if isinstance(given, type):
        return given.__dict__.get(mark)
    if isinstance(given, staticmethod | classmethod):
        given = given.__func__
    return getattr(given, mark, None) if isinstance(given, types.FunctionType | types.MethodType) else None


def _bound(given: types.MethodType, marked: ActivityDefinition[Any, Any]) -> Callable[..., Any]:
    """The marked function as a method of the same object; `given` may be the wrapper of a step."""
    return types.MethodType(marked.function, given.__self__)


def _function_name(given: Any, what: str, name: str | None) -> str:
    if inspect.isawaitable(given):
        called = getattr(given, "__name__", None) or getattr(getattr(given, "command", None), "name", "f")
        if inspect.iscoroutine(given):
            given.close()  # nobody will ever await it
        raise ConfigError(
            f"{called}(...) was called where the function itself is wanted, to be {what}: "
            f"write `{called}` without the brackets, and its arguments after it"
        )
    if not callable(given):
        raise ConfigError(f"{given!r:.200} is no function, so it cannot be {what}")
    if isinstance(given, functools.partial):
        raise ConfigError(
            f"{given!r:.200} is a partial, whose bound arguments another process cannot know: write a function that calls it"
        )
    if isinstance(given, staticmethod | classmethod):
        raise ConfigError(f"put the decorator of {what} below @{type(given).__name__}, not above it")
    found = name or getattr(given, "__name__", None)
    if not isinstance(found, str):
        raise ConfigError(f"{given!r:.200} has no name, so it cannot be {what}: write a function")
    if found == "<lambda>":
        raise ConfigError(f"a lambda has no name, so it cannot be {what}: write a function with `def`")
    return found


def _check_is_async(given: Callable[..., Any], name: str) -> None:
    if inspect.isasyncgenfunction(given):
        raise ConfigError(f"workflow {name} has a yield: it must be an `async def` that returns its result")
    if not inspect.iscoroutinefunction(given):
        raise ConfigError(
            f"workflow {name} is not async: write `async def {name}`; blocking code belongs into activities"
        )


def _read_class(
    given: type, options: WorkflowOptions, local: Mapping[str, Any] | None
) -> WorkflowDefinition[Any, Any]:
    name = options.name or given.__name__
    runs = _marked_methods(given, RUN)
    if len(runs) != 1:
        how = "no method" if not runs else f"{len(runs)} methods ({', '.join(runs)})"
        raise ConfigError(f"workflow class {name} has {how} with @workflow.run; it needs one, an `async def`")
    ((method, run),) = runs.items()
    _check_is_async(run, f"{name}.{method}")
    check_clocks(run, f"{name}.{method}")
    _check_init(given, name)
    signals: dict[str, SignalDefinition[Any, Any]] = {}
    for attribute, handler in _marked_methods(given, SIGNAL).items():
        signal = getattr(handler, SIGNAL) or attribute
        if signal in signals:
            raise ConfigError(f"workflow class {name} has two handlers of signal {signal}")
        signals[signal] = SignalDefinition(name=f"{name}.{attribute}", function=handler, local=local)
    return WorkflowDefinition(
        name=name, function=run, made_of=given, local=local, options=options, signals=signals
    )


def _marked_methods(given: type, mark: str) -> dict[str, Any]:
    """The marked functions of a class and its bases, by attribute; what a class below has overridden counts as it is there."""
    found = {}
    for attribute in dir(given):
        function = inspect.getattr_static(given, attribute, None)
        if isinstance(function, types.FunctionType) and mark in function.__dict__:
            found[attribute] = function
    return found


def _check_init(given: type, name: str) -> None:
    try:
        inspect.signature(given).bind()
    except TypeError as error:
        raise ConfigError(
            f"workflow class {name} is made without arguments, and its __init__ wants some ({error}): they are given to "
            f"the method with @workflow.run"
        ) from None
    except ValueError:
        pass  # a class of C has no signature


def _without_self(signature: inspect.Signature) -> inspect.Signature:
    return signature.replace(parameters=list(signature.parameters.values())[1:])


def _place(function: Any) -> str:
    code = getattr(inspect.unwrap(function), "__code__", None) if callable(function) else None
    where = f" ({code.co_filename}:{code.co_firstlineno})" if code is not None else ""
    return f"{getattr(function, '__module__', '?')}.{getattr(function, '__qualname__', function)}{where}"
