"""`tensorflow_model_server`'s command line and configuration files, for the router."""
