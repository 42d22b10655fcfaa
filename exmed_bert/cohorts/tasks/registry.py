"""The tasks that a fine-tuning can be asked for. A new one is a module beside this one and a line here."""

from pathlib import Path
from typing import Any

from exmed_bert.cohorts.tasks.base import Task
from exmed_bert.cohorts.tasks.first_occurrence import FirstOccurrence
from exmed_bert.cohorts.tasks.own_labels import OwnLabels
from exmed_bert.cohorts.tasks.prolonged_stay import ProlongedStay
from exmed_bert.cohorts.tasks.time_to_event import TimeToEvent
from exmed_bert.console import InputError, OptionError
from exmed_bert.settings import FinetuneSettings

_TASKS: list[type[Task]] = []


def register(task: type[Task]) -> type[Task]:
    """Add a task, so that its option requests it and its models predict; also as a decorator.

    Raises:
        ValueError: its name is taken.
    """
    if any(known.name == task.name for known in _TASKS):
        raise ValueError(f"a task is registered as {task.name!r} already")
    _TASKS.append(task)
    return task


register(FirstOccurrence)
register(OwnLabels)
register(ProlongedStay)
register(TimeToEvent)


def requested_task(settings: FinetuneSettings) -> Task:
    """Return the task that the settings ask for, to train on.

    Raises:
        InputError, OptionError: they ask for none or for several, or a setting is wrong.
    """
    named = [task.name for task in _TASKS if task.option == Task.option]
    if settings.task is not None and settings.task not in named:
        raise OptionError(f"--task: {settings.task!r}, expected {' or '.join(named)}")
    requested = [task for task in _TASKS if task.requested(settings)]
    if len(requested) == 1:
        return requested[0].from_settings(settings, outcomes=True)
    options = dict.fromkeys(task.option for task in _TASKS)
    *some, last = (f"{option} {'|'.join(named)}" if option == Task.option else option for option in options)
    given = " and ".join(task.option for task in requested) or "none of them"
    raise OptionError(f"give one of {', '.join(some)} and {last}, to say what is predicted; got {given}")


def saved_task(path: Path, content: dict[str, Any], settings: FinetuneSettings) -> Task:
    """Return the task of a fine-tuned model, to predict with: at the prediction times of --labels, where it is given.

    Args:
        path: the file that holds the content.
        content: what `Task.to_dict` returned.
        settings: of the prediction.

    Raises:
        InputError, OptionError: the content or a setting is wrong.
    """
    if OwnLabels.requested(settings):
        return OwnLabels.from_settings(settings, outcomes=True)
    try:
        by_name = {task.name: task for task in _TASKS}
        if content["name"] not in by_name:
            raise InputError(f"{path}: task: {content['name']!r}, expected one of {', '.join(by_name)}")
        return by_name[content["name"]].from_dict(content, settings)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: task: is damaged: {error}") from None
