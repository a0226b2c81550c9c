package serve

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/cairndb/cairn/internal/base"
)

// authService is etcd's Auth service on a cluster that has no users: authentication is not built. What etcd answers where nobody
// was ever added, and authentication never enabled, is true here and answered; what would add somebody is refused, for a user that
// protects nothing must not seem to.
type authService struct {
	pb.UnimplementedAuthServer
	cfg *Config
}

// errNoAuth refuses what would have to be remembered.
var errNoAuth = status.Error(codes.Unimplemented, "etcdserver: authentication is not supported: there are no users and no roles, and none can be added")

// firstAuthRevision is what etcd's is before anything was changed.
const firstAuthRevision = 1

func (s *authService) header() *pb.ResponseHeader { return s.cfg.fillHeader(base.KeyspaceDefault, nil) }

// AuthStatus says that it is not enabled.
func (s *authService) AuthStatus(context.Context, *pb.AuthStatusRequest) (*pb.AuthStatusResponse, error) {
	return &pb.AuthStatusResponse{Header: s.header(), AuthRevision: firstAuthRevision}, nil
}

// AuthEnable needs a user root, as in etcd.
func (s *authService) AuthEnable(context.Context, *pb.AuthEnableRequest) (*pb.AuthEnableResponse, error) {
	return nil, rpctypes.ErrGRPCRootUserNotExist
}

// AuthDisable has nothing to do, as in etcd.
func (s *authService) AuthDisable(context.Context, *pb.AuthDisableRequest) (*pb.AuthDisableResponse, error) {
	return &pb.AuthDisableResponse{Header: s.header()}, nil
}

// Authenticate says so: clients that have a name and a password go on without a token.
func (s *authService) Authenticate(context.Context, *pb.AuthenticateRequest) (*pb.AuthenticateResponse, error) {
	return nil, rpctypes.ErrGRPCAuthNotEnabled
}

// UserList is empty.
func (s *authService) UserList(context.Context, *pb.AuthUserListRequest) (*pb.AuthUserListResponse, error) {
	return &pb.AuthUserListResponse{Header: s.header()}, nil
}

// RoleList is empty.
func (s *authService) RoleList(context.Context, *pb.AuthRoleListRequest) (*pb.AuthRoleListResponse, error) {
	return &pb.AuthRoleListResponse{Header: s.header()}, nil
}

// UserAdd is refused.
func (s *authService) UserAdd(_ context.Context, req *pb.AuthUserAddRequest) (*pb.AuthUserAddResponse, error) {
	if req.Name == "" {
		return nil, rpctypes.ErrGRPCUserEmpty
	}
	return nil, errNoAuth
}

// RoleAdd is refused.
func (s *authService) RoleAdd(_ context.Context, req *pb.AuthRoleAddRequest) (*pb.AuthRoleAddResponse, error) {
	if req.Name == "" {
		return nil, rpctypes.ErrGRPCRoleEmpty
	}
	return nil, errNoAuth
}

// The others name a user or a role that is not there.

// UserGet finds nobody.
func (s *authService) UserGet(context.Context, *pb.AuthUserGetRequest) (*pb.AuthUserGetResponse, error) {
	return nil, rpctypes.ErrGRPCUserNotFound
}

// UserDelete finds nobody.
func (s *authService) UserDelete(context.Context, *pb.AuthUserDeleteRequest) (*pb.AuthUserDeleteResponse, error) {
	return nil, rpctypes.ErrGRPCUserNotFound
}

// UserChangePassword finds nobody.
func (s *authService) UserChangePassword(context.Context, *pb.AuthUserChangePasswordRequest) (*pb.AuthUserChangePasswordResponse, error) {
	return nil, rpctypes.ErrGRPCUserNotFound
}

// UserGrantRole finds nobody.
func (s *authService) UserGrantRole(context.Context, *pb.AuthUserGrantRoleRequest) (*pb.AuthUserGrantRoleResponse, error) {
	return nil, rpctypes.ErrGRPCUserNotFound
}

// UserRevokeRole finds nobody.
func (s *authService) UserRevokeRole(context.Context, *pb.AuthUserRevokeRoleRequest) (*pb.AuthUserRevokeRoleResponse, error) {
	return nil, rpctypes.ErrGRPCUserNotFound
}

// RoleGet finds none.
func (s *authService) RoleGet(context.Context, *pb.AuthRoleGetRequest) (*pb.AuthRoleGetResponse, error) {
	return nil, rpctypes.ErrGRPCRoleNotFound
}

// RoleDelete finds none.
func (s *authService) RoleDelete(context.Context, *pb.AuthRoleDeleteRequest) (*pb.AuthRoleDeleteResponse, error) {
	return nil, rpctypes.ErrGRPCRoleNotFound
}

// RoleGrantPermission finds none.
func (s *authService) RoleGrantPermission(context.Context, *pb.AuthRoleGrantPermissionRequest) (*pb.AuthRoleGrantPermissionResponse, error) {
	return nil, rpctypes.ErrGRPCRoleNotFound
}

// RoleRevokePermission finds none.
func (s *authService) RoleRevokePermission(context.Context, *pb.AuthRoleRevokePermissionRequest) (*pb.AuthRoleRevokePermissionResponse, error) {
	return nil, rpctypes.ErrGRPCRoleNotFound
}
