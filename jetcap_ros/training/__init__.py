"""Training and scoring of captioning models; nothing here is needed on the robot."""
