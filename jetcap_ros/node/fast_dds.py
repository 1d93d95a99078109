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
Room for whole camera frames in Fast DDS's shared memory.

By default it cuts messages up to fit the sender's half megabyte, and most raw VGA frames are lost
in there. It is the camera that needs the room: subscribers keep the defaults.
"""

from importlib.metadata import version
import os
from pathlib import Path

PROFILE = """<?xml version="1.0" encoding="UTF-8"?>
<dds xmlns="http://www.eprosima.com"><profiles>
  <transport_descriptors><transport_descriptor>
    <transport_id>whole_frames</transport_id><type>SHM</type>
    <segment_size>{size}</segment_size><maxMessageSize>{half}</maxMessageSize>
  </transport_descriptor></transport_descriptors>
  <participant profile_name="whole_frames" is_default_profile="true"><rtps>
    <userTransports><transport_id>whole_frames</transport_id></userTransports>
    <useBuiltinTransports>false</useBuiltinTransports>
  </rtps></participant>
</profiles></dds>
"""
# As Fast DDS 3 names it, and as those before, which Fast DDS 3 reads with a warning.
NEW, OLD = 'FASTDDS_DEFAULT_PROFILES_FILE', 'FASTRTPS_DEFAULT_PROFILES_FILE'


def room_for_frames(folder: Path, megabytes: int) -> dict[str, str]:
    """
    Return what a camera's environment needs for frames of up to half of this memory.

    :param folder: for the profile that is written; must stay until the camera has started.
    :param megabytes: of shared memory, allocated at once by each process with this environment.
    :return: nothing if the user's environment names a profile already.
    """
    if NEW in os.environ or OLD in os.environ:
        return {}
    profile = folder / 'fastdds.xml'
    size = megabytes << 20
    profile.write_text(PROFILE.format(size=size, half=size // 2), encoding='utf-8')
    # Fast DDS 3 came with Kilted, whose rclpy is 9.
    return {NEW if int(version('rclpy').split('.')[0]) > 8 else OLD: str(profile)}
