"""Caption a robot's camera, on computers with little memory."""

__version__ = '0.1.0'
