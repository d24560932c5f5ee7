"""Both stages of training, with TRL's trainers."""
