"""Recurrent Interface Networks: train, sample and evaluate diffusion models of images, video and sets of vectors."""
