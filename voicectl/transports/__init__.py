"""Where audio enters and leaves. One door a file; each implements `pipeline.protocols.Transport`."""
