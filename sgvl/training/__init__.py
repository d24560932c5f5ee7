"""The two stages of training, through TRL's trainers."""
