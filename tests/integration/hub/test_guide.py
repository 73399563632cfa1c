"""The guide's values for the Helm chart fit each other; their Python is run in `test_with_time`."""

from tests.integration.hub.guide import zero_to_jupyterhub

PORT = 8190


def test_service_port_and_all_network_policies_name_the_port_that_the_service_listens_at():
    values = zero_to_jupyterhub()
    hub, singleuser = values["hub"], values["singleuser"]

    assert f'service_url="http://hub:{PORT}"' in hub["extraConfig"]["90-micromegas"]
    assert [(port["port"], port["targetPort"]) for port in hub["service"]["extraPorts"]] == [(PORT, PORT)]
    to_service, to_flight_server = singleuser["networkPolicy"]["egress"]
    for rules in (hub["networkPolicy"]["ingress"], [to_service], values["proxy"]["chp"]["networkPolicy"]["egress"]):
        assert [[port["port"] for port in rule["ports"]] for rule in rules] == [[PORT]]
    uri = singleuser["extraEnv"]["MICROMEGAS_ANALYTICS_URI"]
    assert uri.endswith(f":{to_flight_server['ports'][0]['port']}")


def test_no_secret_stands_in_the_values():
    extra = zero_to_jupyterhub()["hub"]["extraEnv"]

    assert all(set(value) == {"valueFrom"} for value in extra.values())
