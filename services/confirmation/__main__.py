"""`python -m services.confirmation run | migrate | parked …`."""

from services.chassis.cli import main
from services.confirmation.app import create_app
from services.confirmation.settings import Settings

main(Settings, create_app)
