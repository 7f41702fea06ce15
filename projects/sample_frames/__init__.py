"""Sampling: which frames of videos and nuScenes scenes are used, from the command line."""
