"""Study of pose encodings: the same two detectors, told in eight ways where their cameras look, on rigs known and unknown."""
