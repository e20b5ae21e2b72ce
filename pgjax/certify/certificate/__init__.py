"""What a certificate holds, and what it says when it is printed."""

from pgjax.certify.certificate.bias_test import SamplingTest, bias_test
from pgjax.certify.certificate.comparison import Certificates
from pgjax.certify.certificate.record import Certificate, Cost, VarianceTerms

__all__ = ["Certificate", "Certificates", "Cost", "SamplingTest", "VarianceTerms", "bias_test"]
