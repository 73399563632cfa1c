"""The guide's values for the Helm chart fit each other; their Python is run in `test_with_time`."""

from tests.integration.hub.guide import zero_to_jupyterhub

PORT = 8190


def test_service_port_and_all_network_policies_name_the_port_that_the_service_listens_at():
    values = zero_to_jupyterhub()
    hub, singleuser = values["hub"], values["singleuser"]

    assert f'service_url="http://hub:{PORT}"' in hub["extraConfig"]["90-micromegas"]
    assert [(port["port"], port["targetPort"]) for port in hub["service"]["extraPorts"]] == [(PORT, PORT)]
    rooms = (hub["networkPolicy"]["ingress"], singleuser["networkPolicy"]["egress"])
    for rules in (*rooms, values["proxy"]["chp"]["networkPolicy"]["egress"]):
        assert [[port["port"] for port in rule["ports"]] for rule in rules] == [[PORT]]


def test_no_secret_stands_in_the_values():
    extra = zero_to_jupyterhub()["hub"]["extraEnv"]

    assert all(set(value) == {"valueFrom"} for value in extra.values())
