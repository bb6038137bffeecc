"""Where Ray has the parts that carry out runtime environments; here they are in `miniray.runtime_env`."""
