package env

import (
	"context"
	"fmt"
	"os"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// UserConfig returns a client configuration with a new certificate for a user and
// groups, without client-side rate limits.
func (cp *ControlPlane) UserConfig(user string, groups ...string) (*rest.Config, error) {
	cert, err := cp.clients.client(user, groups...)
	if err != nil {
		return nil, err
	}
	return &rest.Config{
		Host: cp.URL,
		TLSClientConfig: rest.TLSClientConfig{
			CAData: cp.CAPEM, CertData: cert.Cert, KeyData: cert.Key,
		},
		QPS: -1,
	}, nil
}

// UserKubeconfig writes a kubeconfig with a new certificate for a user and groups
// and returns its path.
func (cp *ControlPlane) UserKubeconfig(user string, groups ...string) (string, error) {
	cert, err := cp.clients.client(user, groups...)
	if err != nil {
		return "", err
	}
	return cp.writeKubeconfig(user, &clientcmdapi.AuthInfo{ClientCertificateData: cert.Cert, ClientKeyData: cert.Key})
}

func (cp *ControlPlane) writeKubeconfig(user string, auth *clientcmdapi.AuthInfo) (string, error) {
	config := clientcmdapi.NewConfig()
	config.Clusters["zt-env"] = &clientcmdapi.Cluster{Server: cp.URL, CertificateAuthorityData: cp.CAPEM}
	config.AuthInfos[user] = auth
	config.Contexts["zt-env"] = &clientcmdapi.Context{Cluster: "zt-env", AuthInfo: user}
	config.CurrentContext = "zt-env"
	file, err := os.CreateTemp(cp.Dir, "kubeconfig-")
	if err != nil {
		return "", fmt.Errorf("write the kubeconfig of %s: %w", user, err)
	}
	defer file.Close()
	if err := clientcmd.WriteToFile(*config, file.Name()); err != nil {
		return "", fmt.Errorf("write the kubeconfig of %s: %w", user, err)
	}
	return file.Name(), nil
}

// ServiceAccountToken returns a token for a service account, which is created
// with its namespace where it is missing. The API server grants no less than ten
// minutes.
func (cp *ControlPlane) ServiceAccountToken(ctx context.Context, namespace, name string, life time.Duration) (string, error) {
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}
	if _, err := cp.client.CoreV1().Namespaces().Create(ctx, ns, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		return "", fmt.Errorf("make the namespace of service account %s/%s: %w", namespace, name, err)
	}
	accounts := cp.client.CoreV1().ServiceAccounts(namespace)
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if _, err := accounts.Create(ctx, account, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		return "", fmt.Errorf("make service account %s/%s: %w", namespace, name, err)
	}
	seconds := int64(life / time.Second)
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &seconds}}
	granted, err := accounts.CreateToken(ctx, name, request, metav1.CreateOptions{})
	if err != nil {
		return "", fmt.Errorf("make a token for service account %s/%s: %w", namespace, name, err)
	}
	return granted.Status.Token, nil
}
