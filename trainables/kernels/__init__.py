"""Convolutions on packed bits, compiled for the machine they run on."""
