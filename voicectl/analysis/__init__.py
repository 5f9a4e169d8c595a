"""What recordings say: definitions, percentiles, verdicts. Pure: recordings in, frozen values out."""
