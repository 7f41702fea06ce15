"""Procedural nuScenes-format world: settings in, a complete `v1.0-mini` data set out, in nuScenes' own frames."""
