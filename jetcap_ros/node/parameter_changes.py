# Copyright 2026 jetcap_ros maintainers
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""
What happens when parameters are set: at once, with another worker, or not in this state.

Several that need another worker are set by one call as often as not, and then mean one worker.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rcl_interfaces.srv import SetParameters
from rclpy.node import Node
from rclpy.parameter import Parameter

from .parameters import check, SPECS
from ..engine.captioner import Captioner
from ..engine.plan import make_plan
from ..engine.settings import CaptionerSettings, OF_THE_WORKER

SETTINGS = tuple(CaptionerSettings.__dataclass_fields__)


class ParameterChanges:
    """
    Judges what parameters are set to, and hands it on to the captioner.

    :param is_unconfigured: says whether everything may change, since nothing is loaded.
    :param captioner: returns the one there is.
    :param notify: called after a change.
    """

    def __init__(
            self, node: Node, is_unconfigured: Callable[[], bool],
            captioner: Callable[[], Captioner | None], notify: Callable[[], None]) -> None:
        self._node = node
        self._is_unconfigured = is_unconfigured
        self._captioner = captioner
        self._notify = notify
        self._together: dict[str, Any] | None = None  # all values of the call that is served
        self._swaps: dict[str, Any] = {}
        node.add_on_set_parameters_callback(self.judge)
        for service in node.services:
            if service.srv_type is SetParameters:  # it sets one after the other
                self._set_one_by_one = service.callback
                service.callback = self._set_together

    def judge(self, parameters: list[Parameter[Any]]) -> SetParametersResult:
        """Say whether parameters may be set, and take them on if so."""
        # An exception here would end spin.
        try:
            reason = self._refusal(parameters)
            if not reason:
                self._take_on({p.name: p.value for p in parameters if p.name in SPECS})
            return SetParametersResult(successful=not reason, reason=reason)
        except Exception as error:
            return SetParametersResult(
                successful=False, reason=f'{type(error).__name__}: {error}')

    def _refusal(self, parameters: list[Parameter[Any]]) -> str:
        for parameter in parameters:
            spec = SPECS.get(parameter.name)
            reason = check(parameter)
            if reason:
                return reason
            if spec is None or spec.live or spec.swaps or self._is_unconfigured():
                continue
            if not _same(parameter.value, self._node.get_parameter(parameter.name).value):
                return (
                    f'parameter {parameter.name} decides what on_configure makes: clean up '
                    'first, then set it')
        return self._cannot_swap({p.name: p.value for p in parameters if p.name in OF_THE_WORKER})

    def _cannot_swap(self, values: dict[str, Any]) -> str:
        """Return what is known at once to be wrong with the worker asked for."""
        captioner = self._captioner()
        if captioner is None or not values:
            return ''
        together = {
            name: value for name, value in (self._together or {}).items()
            if name in OF_THE_WORKER}
        wanted = replace(captioner.settings, **{**self._swaps, **together, **values})
        if wanted == captioner.settings:
            return ''
        plan = make_plan(wanted).models[0]
        # Memory may come: the old worker's, for one.
        return '' if plan.fits or plan.advice else f'not loaded: {plan.problem}'

    def _take_on(self, values: dict[str, Any]) -> None:
        captioner = self._captioner()
        if captioner is not None:
            for name, value in values.items():
                if name in OF_THE_WORKER:
                    self._swaps[name] = value
                elif name in SETTINGS:
                    setattr(captioner.settings, name, value)
            if self._together is None:
                self._swap(captioner)
        self._notify()

    def _swap(self, captioner: Captioner) -> None:
        swaps, self._swaps = self._swaps, {}
        if swaps:
            captioner.swap(swaps)

    def _set_together(
            self, request: SetParameters.Request,
            response: SetParameters.Response) -> SetParameters.Response:
        """Serve a call that sets several: those that need another worker mean one."""
        given = {p.name: Parameter.from_parameter_msg(p).value for p in request.parameters}
        self._together = given
        try:
            for message in request.parameters:
                if self._is_read_only(message.name, given[message.name]):
                    response.results.append(SetParametersResult(successful=True))
                    continue
                one = SetParameters.Request(parameters=[message])
                response.results += self._set_one_by_one(one, SetParameters.Response()).results
            return response
        finally:
            self._together = None
            captioner = self._captioner()
            if captioner is not None:
                self._swap(captioner)

    def _is_read_only(self, name: str, value: Any) -> bool:
        """Say whether a read-only parameter is set to what it is, as a dump that is loaded does."""
        return (
            self._node.has_parameter(name) and self._node.describe_parameter(name).read_only
            and _same(value, self._node.get_parameter(name).value))


def _same(value: Any, other: Any) -> bool:
    if isinstance(value, str) or not hasattr(value, '__len__'):
        return bool(value == other)
    return list(value) == list(other)
