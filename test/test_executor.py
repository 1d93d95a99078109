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

"""The executor: what a callback that is slow or fails costs the others."""

import functools
import sys
import threading

from jetcap_ros.node.domain import reserve_domain
from jetcap_ros.node.executor import NodeExecutor
import pytest
import rclpy
from rclpy.callback_groups import ReentrantCallbackGroup
from std_msgs.msg import String
from std_srvs.srv import Trigger
import waiting

wait_for = functools.partial(waiting.wait_for, timeout=10)


@pytest.fixture
def node():
    domain, reserved = reserve_domain()
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=domain)
    node = rclpy.create_node('executed', context=context)
    executor = NodeExecutor(node)
    thread = threading.Thread(target=executor.spin)
    thread.start()
    yield node
    executor.shutdown(timeout_sec=1)
    thread.join()
    node.destroy_node()
    rclpy.shutdown(context=context)
    reserved.close()


def test_messages_come_in_while_services_take_their_time(node):
    answers, messages = threading.Event(), []

    def serve(request, response):
        assert answers.wait(10)
        response.success = True
        return response

    node.create_service(Trigger, 'slow', serve, callback_group=ReentrantCallbackGroup())
    client = node.create_client(Trigger, 'slow')
    node.create_subscription(String, 'text', messages.append, 10)
    publisher = node.create_publisher(String, 'text', 10)
    wait_for(lambda: publisher.get_subscription_count() and client.service_is_ready())
    futures = [client.call_async(Trigger.Request()) for _ in range(3)]
    for number in range(5):
        publisher.publish(String(data=str(number)))
    wait_for(lambda: len(messages) == 5)
    assert not any(future.done() for future in futures)
    answers.set()
    wait_for(lambda: all(future.done() for future in futures))
    assert all(future.result().success for future in futures)


def test_what_a_callback_raises_is_logged_and_costs_no_other(node, capfd):
    ticks, logged = [], []

    def is_logged(words):
        logged.append(capfd.readouterr().err)
        return words in ''.join(logged)

    def tick():
        ticks.append(1)
        raise ValueError(f'tick {len(ticks)}')

    def serve(request, response):
        raise KeyError('of the service')

    node.create_timer(0.05, tick)
    node.create_service(Trigger, 'broken', serve)
    client = node.create_client(Trigger, 'broken')
    wait_for(client.service_is_ready)
    client.call_async(Trigger.Request())
    wait_for(lambda: is_logged("KeyError: 'of the service'"))
    wait_for(lambda: is_logged('ValueError: tick 1'))
    ticks_before = len(ticks)
    wait_for(lambda: len(ticks) > ticks_before + 3)


def test_subscriptions_come_and_go_while_it_waits(node):
    ticks = []
    node.create_timer(0.001, lambda: ticks.append(1))
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-7)  # so that the threads meet everywhere
    try:
        for _ in range(100):
            subscriptions = [
                node.create_subscription(String, 'text', lambda message: None, 10)
                for _ in range(5)]
            for subscription in subscriptions:
                node.destroy_subscription(subscription)
    finally:
        sys.setswitchinterval(interval)
    ticks_before = len(ticks)
    wait_for(lambda: len(ticks) > ticks_before)
